"""Erasing what was said about aggregates: facts stay, their content goes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import executor_of, load_queries, map_database_errors

__all__ = ("Erasure", "erase")

_SQL: Final = load_queries(__package__ or "relaybox.events", "events.sql")
#: Aggregates of one statement, each of which may take POSTGRES_STATEMENT_TIMEOUT_MS: 1,000 with 5 events,
#: commands, answers and rows each take 0.5 to 1 s, and an aggregate may have hundreds.
_AGGREGATES_MAX: Final = 100
#: Rows of the outbox, likewise.
_ROWS_MAX: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Erasure:
    """How much an erasure found; ``event_erasures`` has the same, but for the outbox."""

    #: Events whose payload is ``{"erased": true}`` now, and rows of the outbox likewise.
    events: int = 0
    outbox_rows: int = 0
    #: Commands of these aggregates, which have no payload and no key any more.
    commands: int = 0
    #: Tasks of these, without input, result and error; those that were open are CANCELLED.
    tasks: int = 0
    #: Stored answers that were about these aggregates; the same key again gets 410.
    answers: int = 0
    #: Snapshots that the library kept, which are gone.
    snapshots: int = 0


async def erase(
    db: AsyncSession, aggregate_type: str, aggregate_ids: Iterable[UUID | str], *, actor: str, reason: str
) -> Erasure:
    """Erase the content of all that PostgreSQL holds about these aggregates, if, and only if, *db* commits.

    It is irreversible, and on record with *actor* and *reason* (``event_erasures``), which must hold nothing
    that is to be erased. What happened, when, by whom and to what stays; a PENDING row is published
    erased. What is on Kafka leaves by the topic's retention, a dead row's bytes by vacuum.

    The application's own tables are its own to clear. *db* is READ COMMITTED, as in a unit of work, and holds
    the locks that writers of these aggregates take: what they commit while this runs would stay. Facts that
    shall keep their content, as that of the erasure, are recorded after it. Two round-trips for each 100, and
    one for each 1,000 rows of the outbox: these come last, in the order in which relays mark them, so that
    relays wait for no more than that, and until *db* ends.

    Raises:
        ValueError: no aggregate is named, or nobody, or no reason.
        RetryTransaction: another transaction holds some of it, and waits for this one.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL is away, or a lock did not come in time.
    """
    ids = sorted({str(one) for one in aggregate_ids})
    if not ids or not actor or not reason:
        raise ValueError("an erasure names aggregates, an actor and a reason")
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
