"""Erase the content of the events of aggregates; the events themselves stay."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import executor_of, load_queries, map_database_errors

__all__ = ("Erasure", "erase")

_SQL: Final = load_queries(__package__ or "relaybox.events", "events.sql")
#: Aggregates per statement, bounded by POSTGRES_STATEMENT_TIMEOUT_MS: 1,000 aggregates with 5 events,
#: commands, responses and rows each take 0.5 to 1 s, and an aggregate may have hundreds of each.
_AGGREGATES_MAX: Final = 100
#: Outbox rows per statement.
_ROWS_MAX: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """Numbers of rows that an erasure changed; ``event_erasures`` has the same ones except *outbox_rows*."""

    #: Events, and rows of the outbox, whose payload is ``{"erased": true}`` now.
    events: int = 0
    outbox_rows: int = 0
    #: Commands of these aggregates, whose payload and key were removed.
    commands: int = 0
    #: Tasks of these commands, whose input, result and error were removed; open tasks are CANCELLED.
    tasks: int = 0
    #: Stored responses with these aggregates as targets; their keys get 410 now.
    answers: int = 0
    #: Deleted snapshots of ``aggregate_snapshots``.
    snapshots: int = 0


async def erase(
    db: AsyncSession, aggregate_type: str, aggregate_ids: Iterable[UUID | str], *, actor: str, reason: str
) -> Erasure:
    """Erase the content of all rows of the library about these aggregates, in the transaction of *db*.

    An erasure is irreversible. ``event_erasures`` records it with *actor* and *reason*, which must not
    contain erased content. Type, time, actor and aggregate of each event stay; a PENDING row is published
    erased. Records in Kafka are removed by the topic's retention, the bytes of dead rows by vacuum.

    The application erases its own tables. *db* must be READ COMMITTED, as in a unit of work, and hold the
    locks that writers of these aggregates take: rows that they commit meanwhile would stay. Record events
    that must keep their content, such as one about the erasure, afterwards. Takes two round-trips for each
    100 aggregates, and one for each 1,000 rows of the outbox: these are erased last, in the order in which
    relays mark them, so that relays wait as short as possible, until *db* ends.

    Raises:
        ValueError: *aggregate_ids*, *actor* or *reason* is empty.
        RetryTransaction: Another transaction holds one of the rows, and waits for this transaction.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL is unreachable, or a lock was not granted in time.
    """
    ids = sorted({str(one) for one in aggregate_ids})
    if not ids or not actor or not reason:
        raise ValueError("an erasure needs at least one aggregate, an actor and a reason")
    executor, counts = executor_of(db), Counter[str]()
    rows: list[tuple[int, int]] = []
    with map_database_errors():
        for first in range(0, len(ids), _AGGREGATES_MAX):
            some = ids[first : first + _AGGREGATES_MAX]
            [row] = await executor.fetch(_SQL["erase"], aggregate_type, some, actor, reason)
            counts.update(dict(row))
            found = await executor.fetch(_SQL["rows_to_erase"], aggregate_type, some)
            rows += ((one["slot"], one["seq"]) for one in found)
        seqs = [seq for _, seq in sorted(rows)]
        for first in range(0, len(seqs), _ROWS_MAX):
            [row] = await executor.fetch(_SQL["erase_rows"], seqs[first : first + _ROWS_MAX])
            counts.update(dict(row))
    return Erasure(**counts)
