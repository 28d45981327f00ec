"""Read recorded events from ``domain_events``."""

from collections.abc import AsyncIterator
from typing import Final
from uuid import UUID

from relaybox.db import Executor, load_queries
from relaybox.events._record import RecordedEvent

__all__ = ("fetch_chain", "fetch_recent", "fetch_stream", "iterate_streams")

_SQL: Final = load_queries(__package__ or "relaybox.events", "events.sql")
_PAGE_ROWS: Final = 1_000
_CHAIN_ROWS_MAX: Final = 10_000


async def fetch_stream(
    executor: Executor,
    aggregate_type: str,
    aggregate_id: str,
    *,
    after_version: int = 0,
    limit: int = _PAGE_ROWS,
) -> list[RecordedEvent]:
    """Return at most *limit* events of one aggregate after *after_version*, oldest first."""
    rows = await executor.fetch(_SQL["stream"], aggregate_type, aggregate_id, after_version, limit)
    return [RecordedEvent.from_row(row) for row in rows]


async def fetch_recent(
    executor: Executor,
    aggregate_type: str,
    aggregate_id: str,
    *,
    before_version: int | None = None,
    limit: int = _PAGE_ROWS,
) -> list[RecordedEvent]:
    """Return at most *limit* events of one aggregate, newest first; all if *before_version* is None."""
    rows = await executor.fetch(_SQL["recent"], aggregate_type, aggregate_id, before_version, limit)
    return [RecordedEvent.from_row(row) for row in rows]


async def fetch_chain(executor: Executor, correlation_id: UUID) -> list[RecordedEvent]:
    """Return the events with one correlation id in the order of insertion, at most the first 10,000."""
    rows = await executor.fetch(_SQL["chain"], correlation_id, _CHAIN_ROWS_MAX)
    return [RecordedEvent.from_row(row) for row in rows]


async def iterate_streams(executor: Executor, aggregate_type: str) -> AsyncIterator[RecordedEvent]:
    """Yield all events of all aggregates of a type, one aggregate after the other, each oldest first.

    Reads pages of 1,000 events, so memory does not grow with the table.
    """
    at: tuple[str, int] = ("", 0)
    while True:
        rows = await executor.fetch(_SQL["streams_page"], aggregate_type, *at, _PAGE_ROWS)
        for row in rows:
            yield RecordedEvent.from_row(row)
        if len(rows) < _PAGE_ROWS:
            return
        at = (rows[-1]["aggregate_id"], rows[-1]["aggregate_version"])
