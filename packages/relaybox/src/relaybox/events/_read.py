"""Read recorded events from ``domain_events``.

Each function has a parameter ``event_types``: types with the versions that the caller can read. A payload
of an earlier version is converted to the declared version; for a later version an error is raised. With None,
events are returned as they were recorded.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

from relaybox.db import Executor, load_queries
from relaybox.events._record import RecordedEvent
from relaybox.events._upcasting import EventTypes

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
    event_types: EventTypes | None = None,
) -> list[RecordedEvent]:
    """Return at most *limit* events of one aggregate after *after_version*, oldest first.

    Raises:
        EventVersionUnknown, EventUpcastFailed: See :meth:`EventTypes.upcast_recorded`.
    """
    rows = await executor.fetch(_SQL["stream"], aggregate_type, aggregate_id, after_version, limit)
    return _events(rows, event_types)


async def fetch_recent(
    executor: Executor,
    aggregate_type: str,
    aggregate_id: str,
    *,
    before_version: int | None = None,
    limit: int = _PAGE_ROWS,
    event_types: EventTypes | None = None,
) -> list[RecordedEvent]:
    """Return at most *limit* events of one aggregate, newest first.

    *before_version* excludes the events from this version on; None excludes none.

    Raises:
        EventVersionUnknown, EventUpcastFailed: See :meth:`EventTypes.upcast_recorded`.
    """
    rows = await executor.fetch(_SQL["recent"], aggregate_type, aggregate_id, before_version, limit)
    return _events(rows, event_types)


async def fetch_chain(
    executor: Executor, correlation_id: UUID, *, event_types: EventTypes | None = None
) -> list[RecordedEvent]:
    """Return the events with one correlation id in the order of insertion, at most the first 10,000.

    Raises:
        EventVersionUnknown, EventUpcastFailed: See :meth:`EventTypes.upcast_recorded`.
    """
    rows = await executor.fetch(_SQL["chain"], correlation_id, _CHAIN_ROWS_MAX)
    return _events(rows, event_types)


async def iterate_streams(
    executor: Executor, aggregate_type: str, *, event_types: EventTypes | None = None
) -> AsyncIterator[RecordedEvent]:
    """Yield all events of all aggregates of a type, one aggregate after the other, each oldest first.

    Reads pages of 1,000 events, so memory does not grow with the table.

    Raises:
        EventVersionUnknown, EventUpcastFailed: See :meth:`EventTypes.upcast_recorded`. All events before the
            unreadable event have been yielded.
    """
    at: tuple[str, int] = ("", 0)
    while True:
        rows = await executor.fetch(_SQL["streams_page"], aggregate_type, *at, _PAGE_ROWS)
        for row in rows:
            event = RecordedEvent.from_row(row)
            yield event if event_types is None else event_types.upcast_recorded(event)
        if len(rows) < _PAGE_ROWS:
            return
        at = (rows[-1]["aggregate_id"], rows[-1]["aggregate_version"])


def _events(rows: Sequence[Mapping[str, Any]], event_types: EventTypes | None) -> list[RecordedEvent]:
    events = [RecordedEvent.from_row(row) for row in rows]
    return events if event_types is None else [event_types.upcast_recorded(event) for event in events]
