"""Recording a command that the application has decided itself, with its events, in its own transaction."""

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
#: Of one statement. Some MB are a moment on any link, and what a server takes apart in one piece.
_EVENTS_MAX: Final = 1_000
_CHARACTERS_MAX: Final = 4_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class InboxCommand:
    """A command as it goes into the inbox, decided by the application itself."""

    command_id: UUID
    command_type: str
    #: What it is about: ``session_id`` of the inbox.
    aggregate_id: UUID
    payload: Mapping[str, Any]
    #: RECEIVED where a task will finish it, see :func:`relaybox.tasks.create_task`.
    status: CommandStatus = CommandStatus.COMPLETED
    #: Under which key of the client's it came (``UnitOfWork.key``); null for a command without one.
    key: str | None = None


#: Event id, topic and JSON of an event, beside the event itself.
_Row = tuple[EventEnvelope, str, str]


async def append_events(
    db: AsyncSession,
    command: InboxCommand | None,
    events: Sequence[EventEnvelope],
    *,
    topic: str = "domain-events",
) -> None:
    """Write *command* and its *events* to inbox, event table and outbox in the transaction of *db*.

    For a decision that spans several rows: the application locks them, decides, writes them, and tells here
    what has happened. Each event carries its ``version``, the next of its aggregate, of which there may be
    several. A *command* of None means that it stands in the inbox already, as for a worker that ends a task.

    *topic* as for :class:`relaybox.events.EventBus`. Each 1,000 events or 4 MB more take a round-trip more.

    Raises:
        DuplicateCommand: a command of the type is pending for the aggregate, and this one would be too.
        RetryTransaction: somebody else was faster, and a version is taken: roll back and decide again.
        VersionGap: a version is not the next of its aggregate; nothing was written.
        ValueError: there is nothing to record: no events, and no command that waits for some.
        PayloadInvalid: the command's payload is no JSON, or PostgreSQL cannot store it, or that of an event.
        ConstraintViolated: the id of the command, or of an event, stands there already.
        EventIncomplete, TopicUndeclared, MessageTooLarge: see :func:`relaybox.outbox.save_to_outbox`.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL is away, or a lock did not come in time.
    """
    if not events and (command is None or command.status is not CommandStatus.RECEIVED):
        raise ValueError("there are no events; only a command that is RECEIVED may have none yet")
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
    """End a command that waits, COMPLETED, or FAILED with *error*; False if it has ended already.

    In the transaction that ends its task (:func:`relaybox.tasks.complete_task`) and records what came of it.

    Raises:
        pydantic_core.PydanticSerializationError: *error* holds what JSON cannot.
    """
    document = None if error is None else to_json(error).decode()
    return bool(await executor.fetch(_SQL["settle_command"], command_id, status.value, document))


def check_versions(events: Sequence[EventEnvelope]) -> None:
    """Each event follows the one before it of its aggregate.

    Raises:
        VersionGap: one does not.
    """
    last: dict[tuple[str, str], int] = {}
    for event in events:
        aggregate = (event.aggregate_type, event.aggregate_id)
        if event.version != last.get(aggregate, event.version - 1) + 1:
            raise VersionGap(*aggregate, event.version)
        last[aggregate] = event.version


def chunks_of(rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """*rows* in order, in pieces of one statement each; one piece at the least, which may be empty."""
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
