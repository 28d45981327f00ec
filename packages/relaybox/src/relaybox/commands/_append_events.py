"""Record a command that the application has decided, with its events, in the application's transaction."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from relaybox_types.enums import CommandStatus
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.commands._decide import document_of
from relaybox.commands._errors import DuplicateCommand, VersionGap
from relaybox.commands._record import map_constraint_errors
from relaybox.db import Executor, executor_of, load_queries, map_database_errors
from relaybox.outbox import notify_on_commit, validate_envelope

__all__ = ("InboxCommand", "append_events", "settle_command")

_SQL: Final = load_queries(__package__ or "relaybox.commands", "append_events.sql")
#: Limits of one statement: number of events, and number of characters of their envelopes as JSON.
_EVENTS_MAX: Final = 1_000
_CHARACTERS_MAX: Final = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxCommand:
    """The row of ``command_inbox`` for a command that was decided by the application, not by a decider."""

    command_id: UUID
    command_type: str
    #: Id of the aggregate that the command changes; the column is ``session_id``.
    aggregate_id: UUID
    payload: Mapping[str, Any]
    #: RECEIVED if a task will complete the command, see :func:`relaybox.tasks.create_task`.
    status: CommandStatus = CommandStatus.COMPLETED
    #: The client's idempotency key (``UnitOfWork.key``); None for a command without a key.
    key: str | None = None


#: An event, the topic to publish it to, and the envelope of the event as JSON.
_Row = tuple[EventEnvelope, str, str]


async def append_events(
    db: AsyncSession,
    command: InboxCommand | None,
    events: Sequence[EventEnvelope],
    *,
    topic: str = "domain-events",
) -> None:
    """Write *command* and its *events* to inbox, event table and outbox in the transaction of *db*.

    Use it for a command that changes several rows of the application's tables: the application locks the
    rows, decides, changes the rows, and passes the resulting events. The call takes one round trip for each
    1,000 events or 4 million characters of JSON.

    Args:
        db: Session of the application's transaction.
        command: The command to record; None if the inbox has the command already, as when a worker completes
            the command's task.
        events: Events of one or several aggregates, each with the next ``version`` of its aggregate.
        topic: A topic of ``OUTBOX_TOPICS``; ``OUTBOX_ROUTES`` may route ``domain-events`` to another topic.

    Raises:
        DuplicateCommand: *command* is RECEIVED or PROCESSING, and its aggregate has a pending command of the
            same type.
        RetryTransaction: Another transaction has recorded the same version of an aggregate, or a pending
            command of the same type: roll back and decide again.
        VersionGap: A version is not the next version of its aggregate. Roll back: an earlier round trip of
            this call may have written events.
        ValueError: *events* is empty, and *command* is None or not RECEIVED.
        PayloadInvalid: PostgreSQL cannot store the payload of the command or of an event.
        ConstraintViolated: The id of the command or of an event exists already.
        EventIncomplete, TopicUndeclared, MessageTooLarge: see :func:`relaybox.outbox.save_to_outbox`.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL is unreachable, or a lock was not granted in time.
    """
    if not events and (command is None or command.status is not CommandStatus.RECEIVED):
        what = "no command" if command is None else command.command_type
        raise ValueError(
            f"no events given for {what}; pass at least one event, or a command with status RECEIVED"
        )
    check_versions(events)
    rows = [(event, *validate_envelope(topic, event)) for event in events]
    inbox = _inbox_arguments(command)
    executor, name = executor_of(db), command.command_type if command else events[0].event_type
    with map_database_errors(), map_constraint_errors(name):
        for chunk in chunks_of(rows):
            _refuse(await executor.fetch(_SQL["append_events"], *inbox, *_event_arguments(chunk)))
            inbox = _inbox_arguments(None)
    for key in {event.aggregate_id for event in events}:
        notify_on_commit(db, key)


async def settle_command(
    executor: Executor, command_id: UUID, status: CommandStatus, error: Mapping[str, Any] | None = None
) -> bool:
    """End a pending command (RECEIVED or PROCESSING); return False if the command is not pending.

    Call it in the transaction that completes the command's task (:func:`relaybox.tasks.complete_task`).

    Args:
        executor: Connection or session of the caller's transaction.
        command_id: The command to end.
        status: COMPLETED or FAILED.
        error: Stored in ``error_data`` of a FAILED command; None for a COMPLETED command.

    Raises:
        pydantic_core.PydanticSerializationError: *error* cannot be written as JSON.
    """
    document = None if error is None else to_json(error).decode()
    return bool(await executor.fetch(_SQL["settle_command"], command_id, status.value, document))


def check_versions(events: Sequence[EventEnvelope]) -> None:
    """Check that the events of each aggregate have consecutive versions.

    Raises:
        VersionGap: A version is missing or repeated.
    """
    last: dict[tuple[str, str], int] = {}
    for event in events:
        aggregate = (event.aggregate_type, event.aggregate_id)
        if event.version != last.get(aggregate, event.version - 1) + 1:
            raise VersionGap(*aggregate, event.version)
        last[aggregate] = event.version


def chunks_of(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Split *rows* into chunks, one per statement; yield one empty chunk if there are no rows."""
    chunk: list[_Row] = []
    characters = 0
    for row in rows:
        if chunk and (len(chunk) == _EVENTS_MAX or characters + len(row[2]) > _CHARACTERS_MAX):
            yield chunk
            chunk, characters = [], 0
        chunk.append(row)
        characters += len(row[2])
    yield chunk


def _inbox_arguments(command: InboxCommand | None) -> tuple[Any, ...]:
    if command is None:
        return (None,) * 6
    return (
        command.command_id,
        command.aggregate_id,
        command.command_type,
        document_of(command.command_type, command.payload),
        command.status.value,
        command.key,
    )


def _event_arguments(rows: Sequence[_Row]) -> tuple[Any, ...]:
    firsts: dict[tuple[str, str], int] = {}
    for event, _, _ in rows:
        firsts.setdefault((event.aggregate_type, event.aggregate_id), event.version)
    return (
        [event.event_id for event, _, _ in rows],
        [topic for _, topic, _ in rows],
        [envelope for _, _, envelope in rows],
        [aggregate_type for aggregate_type, _ in firsts],
        [aggregate_id for _, aggregate_id in firsts],
        list(firsts.values()),
    )


def _refuse(obstacles: Sequence[Mapping[str, Any]]) -> None:
    if not obstacles:
        return
    first = obstacles[0]
    if first["duplicate_id"] is not None:
        raise DuplicateCommand(first["duplicate_id"])
    raise VersionGap(first["aggregate_type"], first["aggregate_id"], first["version"])
