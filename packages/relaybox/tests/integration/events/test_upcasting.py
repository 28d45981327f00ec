"""Recorded events of several payload versions: readers get the newest, the rows keep theirs."""

from uuid import UUID, uuid4

import pytest
from pydantic_core import from_json
from relaybox.db import Database
from relaybox.events import (
    EventType,
    EventTypes,
    EventVersionUnknown,
    RecordedEvent,
    fetch_chain,
    fetch_recent,
    fetch_stream,
    iterate_streams,
)

from tests.fixtures.counters import UPDATED, counters
from tests.fixtures.event_publishing import publish_event

TYPES = counters.event_types
#: Payloads of versions 1 and 2 of the event, and what readers get of both.
WRITTEN = ({"amount": 3}, {"by": 4, "note": "two"})
READ = [{"by": 3, "note": ""}, {"by": 4, "note": "two"}]


@pytest.fixture
async def chain(database: Database) -> UUID:
    """Record an event of version 1, then one of version 2, of the same aggregate; return their chain."""
    correlation_id = uuid4()
    for version, payload in enumerate(WRITTEN, start=1):
        await publish_event(
            database,
            event_type=UPDATED.name,
            event_version=version,
            version=version,
            payload=payload,
            correlation_id=correlation_id,
        )
    return correlation_id


async def read_all(
    database: Database, chain: UUID, types: EventTypes | None
) -> dict[str, list[RecordedEvent]]:
    """Read the events in all ways, oldest first."""
    async with database.connection() as connection:
        recent = await fetch_recent(connection, "COUNTER", "c-1", event_types=types)
        return {
            "stream": await fetch_stream(connection, "COUNTER", "c-1", event_types=types),
            "recent": recent[::-1],
            "chain": await fetch_chain(connection, chain, event_types=types),
            "streams": [one async for one in iterate_streams(connection, "COUNTER", event_types=types)],
        }


async def test_all_readers_get_the_newest_payload_of_each_event(database: Database, chain: UUID) -> None:
    for name, events in (await read_all(database, chain, TYPES)).items():
        assert [event.payload for event in events] == READ, name
        assert [event.event_version for event in events] == [2, 2], name
        assert [event.version for event in events] == [1, 2], name


async def test_stored_events_and_outbox_rows_keep_the_version_they_have(
    database: Database, chain: UUID
) -> None:
    await read_all(database, chain, TYPES)
    for name, events in (await read_all(database, chain, None)).items():
        assert [(event.event_version, event.payload) for event in events] == [
            (1, WRITTEN[0]),
            (2, WRITTEN[1]),
        ], name
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT payload::text FROM event_outbox ORDER BY seq")
    published = [from_json(row["payload"]) for row in rows]
    assert [(one["event_version"], one["payload"]) for one in published] == [(1, WRITTEN[0]), (2, WRITTEN[1])]


async def test_newer_version_is_refused_by_all_readers(database: Database, chain: UUID) -> None:
    before = EventTypes([EventType(UPDATED.name)])
    async with database.connection() as connection:
        for read in (
            fetch_stream(connection, "COUNTER", "c-1", event_types=before),
            fetch_recent(connection, "COUNTER", "c-1", event_types=before),
            fetch_chain(connection, chain, event_types=before),
        ):
            with pytest.raises(EventVersionUnknown, match="has version 2, but this release knows versions 1"):
                await read
        streams = iterate_streams(connection, "COUNTER", event_types=before)
        assert (await anext(streams)).version == 1
        with pytest.raises(EventVersionUnknown):
            await anext(streams)
