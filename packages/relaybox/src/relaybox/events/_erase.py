"""Erase the content of the events of aggregates; type, time and actor of each event stay."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Executor, executor_of, load_queries, map_database_errors

__all__ = ("Erasure", "erase")

_SQL: Final = load_queries(__package__ or "relaybox.events", "events.sql")
#: Aggregates per statement, so that each statement ends within POSTGRES_STATEMENT_TIMEOUT_MS. A statement for
#: 1,000 aggregates takes 0.5 to 1 s if each has 5 events, commands, responses and outbox rows; an aggregate
#: may have hundreds of them.
_AGGREGATES_MAX: Final = 100
#: Outbox rows per statement.
_ROWS_MAX: Final = 1_000
#: Dead letters per statement; a letter may have a megabyte.
_LETTERS_MAX: Final = 20
#: Stored as the error of each erased dead letter; letters that have it are not erased again.
_LETTER_ERROR: Final = "the content of the event was erased"
#: Metadata that an erased event keeps, as in the SQL function relaybox_kept_metadata.
_KEPT_METADATA: Final = ("user_id", "source_service", "command_id", "timestamp")


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """Numbers of rows that an erasure changed.

    ``event_erasures`` records them, except *outbox_rows*, *dead_letters* and *flow_events*.
    """

    #: Events whose payload was replaced by ``{"erased": true}``.
    events: int = 0
    #: Outbox rows of these events, whose payload was replaced in the same way.
    outbox_rows: int = 0
    #: Dead letters of these events, whose payload was replaced in the same way.
    dead_letters: int = 0
    #: Events kept for flows, whose payload was replaced in the same way. Copies of the events in flows are
    #: erased too, but not counted.
    flow_events: int = 0
    #: Commands of these aggregates, whose payload, error and idempotency key were removed; pending commands
    #: were marked FAILED.
    commands: int = 0
    #: Tasks of these aggregates or commands, whose input, result and error were removed; open tasks were
    #: CANCELLED.
    tasks: int = 0
    #: Stored responses to requests about these aggregates; a repetition of such a request gets 410.
    answers: int = 0
    #: Rows deleted from ``aggregate_snapshots``.
    snapshots: int = 0


async def erase(
    db: AsyncSession, aggregate_type: str, aggregate_ids: Iterable[UUID | str], *, actor: str, reason: str
) -> Erasure:
    """Erase the content of all rows of Relaybox's tables about these aggregates, in the transaction of *db*.

    An erasure is irreversible. Type, time, actor and aggregate of each event stay. An event that is not
    published yet is published without its content, and a dead letter is replayed without it. The content
    remains in published records until the topic's retention removes them, and on disk until vacuum removes
    the old row versions. The application must erase the content of its own tables itself.

    Record events that must keep their content, such as an event about the erasure, after this call. The call
    takes four round-trips per 100 aggregates, two per 20 dead letters, and one per 1,000 outbox rows. Outbox
    rows are erased last, because a relay that marks such a row waits until the transaction ends. They are
    locked in the order in which relays mark them, so that no deadlock with a relay occurs.

    Args:
        db: A READ COMMITTED transaction; PostgreSQL rejects the call at another isolation level. The
            transaction must hold the locks that writers of these aggregates take: a row that a writer commits
            during the erasure would not be erased.
        aggregate_type: Type of the aggregates.
        aggregate_ids: Ids of the aggregates.
        actor: Recorded in ``event_erasures``; must not contain erased content.
        reason: Recorded in ``event_erasures``; must not contain erased content.

    Raises:
        ValueError: *aggregate_ids*, *actor* or *reason* is empty.
        RetryTransaction: A deadlock with another transaction that locked the same rows in another order.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL is unreachable, or a lock was not granted in time.
    """
    ids = sorted({str(one) for one in aggregate_ids})
    empty = [
        name for name, given in (("aggregate_ids", ids), ("actor", actor), ("reason", reason)) if not given
    ]
    if empty:
        raise ValueError(
            f"erase() got no {', '.join(empty)}; pass at least one aggregate id, an actor and a reason"
        )
    executor, counts = executor_of(db), Counter[str]()
    rows: list[tuple[int, int]] = []
    with map_database_errors():
        for first in range(0, len(ids), _AGGREGATES_MAX):
            some = ids[first : first + _AGGREGATES_MAX]
            [row] = await executor.fetch(_SQL["erase"], aggregate_type, some, actor, reason)
            counts.update(dict(row), dead_letters=await _erase_letters(executor, aggregate_type, some))
            [row] = await executor.fetch(_SQL["erase_flow_events"], aggregate_type, some)
            counts.update(dict(row))
            found = await executor.fetch(_SQL["rows_to_erase"], aggregate_type, some)
            rows += ((one["slot"], one["seq"]) for one in found)
        seqs = [seq for _, seq in sorted(rows)]
        for first in range(0, len(seqs), _ROWS_MAX):
            [row] = await executor.fetch(_SQL["erase_rows"], seqs[first : first + _ROWS_MAX])
            counts.update(dict(row))
    return Erasure(**counts)


async def _erase_letters(db: Executor, aggregate_type: str, aggregate_ids: list[str]) -> int:
    erased, last = 0, 0
    while letters := await db.fetch(
        _SQL["letters_to_erase"], aggregate_type, aggregate_ids, last, _LETTERS_MAX, _LETTER_ERROR
    ):
        ids = [row["id"] for row in letters]
        await db.fetch(_SQL["erase_letters"], ids, [_erased(row["value"]) for row in letters], _LETTER_ERROR)
        erased, last = erased + len(ids), ids[-1]
    return erased


def _erased(value: bytes) -> bytes:
    """Remove the content of an event from the value of its message, and return the new value."""
    message: dict[str, Any] = from_json(value)
    # A CloudEvent in structured mode has the envelope in its member data.
    envelope = message if "aggregate_id" in message else message["data"]
    metadata = envelope.get("metadata", {})
    kept = {name: metadata[name] for name in _KEPT_METADATA if metadata.get(name) is not None}
    envelope.update(payload={"erased": True}, metadata=kept, target_id=None)
    return to_json(message)
