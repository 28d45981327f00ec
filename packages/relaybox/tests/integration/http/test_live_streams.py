"""Live streams check the reader's permission again before every page, and also without new events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import UUID

import pytest
from pydantic_core import from_json
from relaybox.commands import CommandService
from relaybox.db import Database
from relaybox.events import RecordedEvent
from relaybox.http import VisibleEvents, _live
from relaybox.http._live import LiveStreams, ServerSentEvent
from relaybox.outbox import Notifier

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.counters import counters, submit


class Door:
    """An event filter that shows every page until it is closed, and counts its calls."""

    def __init__(self) -> None:
        self.pages: list[list[int]] = []
        self.open = True
        self.shows = 0
        self._asked = asyncio.Event()

    async def until_asked(self) -> None:
        """Return when an empty page was filtered."""
        while self.pages[-1]:
            self._asked.clear()
            await self._asked.wait()
        self.pages.append([0])

    async def __call__(self, events: Sequence[RecordedEvent]) -> VisibleEvents:
        self.pages.append([event.version for event in events])
        self._asked.set()
        if not self.open:
            return VisibleEvents(events=events[: self.shows], ends=True)
        return VisibleEvents(events=[replace(event, payload={}) for event in events])


class Stand:
    """Streams and commands on one database."""

    def __init__(self, live: LiveStreams, service: CommandService) -> None:
        self.live, self.service = live, service

    async def counter(self, steps: int = 1) -> UUID:
        one = (await submit(self.service, "CreateCounter")).aggregate_id
        await self.increase(one, steps)
        return one

    async def increase(self, one: UUID, steps: int = 1) -> None:
        await submit(self.service, "Increase", one, steps=steps)


@pytest.fixture
async def stand(database: Database) -> AsyncIterator[Stand]:
    notifier, live = Notifier(database), LiveStreams(database)
    await notifier.start()
    await live.start()
    async with asyncio.timeout(WAIT_S):
        await live._listener.listening.wait()
    yield Stand(live, CommandService(database, [counters], notifier=notifier, source_service="suite"))
    await live.stop()
    await notifier.stop()


@asynccontextmanager
async def following(
    stand: Stand, one: UUID, door: Door, *, woken_by: Sequence[UUID] = ()
) -> AsyncIterator[AsyncGenerator[ServerSentEvent]]:
    stream = stand.live.follow(
        "COUNTER", one, after_version=0, current_version=2, event_filter=door, woken_by=woken_by
    )
    try:
        assert (await anext(stream)).retry_ms
        async with asyncio.timeout(WAIT_S):
            yield stream
    finally:
        await stream.aclose()


@pytest.mark.guarantee("G84")
async def test_filtered_events_are_omitted_and_the_cursor_advances(stand: Stand) -> None:
    one, door = await stand.counter(), Door()
    async with following(stand, one, door) as stream:
        told = [await anext(stream), await anext(stream)]
        await stand.increase(one)
        told.append(await anext(stream))
    assert [event.id for event in told] == [1, 2, 3]
    assert [from_json(event.data)["payload"] for event in told] == [{}, {}, {}]


@pytest.mark.guarantee("G84")
async def test_reader_without_permission_gets_only_filtered_events(stand: Stand) -> None:
    one, door = await stand.counter(), Door()
    async with following(stand, one, door) as stream:
        assert [(await anext(stream)).id, (await anext(stream)).id] == [1, 2]
        door.open, door.shows = False, 1
        await stand.increase(one, steps=3)
        assert [event.id async for event in stream] == [3]
    assert door.pages[-1] == [3, 4, 5]
    assert "0 clients on 0 aggregates" in repr(stand.live)


@pytest.mark.guarantee("G84")
async def test_event_of_another_aggregate_can_end_a_stream(stand: Stand) -> None:
    one, above, door = await stand.counter(), await stand.counter(), Door()
    async with following(stand, one, door, woken_by=[above]) as stream:
        assert [(await anext(stream)).id, (await anext(stream)).id] == [1, 2]
        silent = asyncio.ensure_future(anext(stream))
        await door.until_asked()  # once more after its last event
        assert "1 clients on 2 aggregates" in repr(stand.live)
        door.open = False
        await stand.increase(above)
        with pytest.raises(StopAsyncIteration):
            await silent
    assert "0 clients on 0 aggregates" in repr(stand.live)


@pytest.mark.guarantee("G84")
async def test_idle_stream_calls_its_filter_at_every_ping(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_live, "_PING_S", 0.01)
    one, door = await stand.counter(), Door()
    async with following(stand, one, door) as stream:
        assert [(await anext(stream)).id, (await anext(stream)).id] == [1, 2]
        assert (await anext(stream)).type is None
        door.open = False
        assert all([event.type is None async for event in stream])
    assert door.pages[-1] == []


async def test_poll_finds_a_change_of_another_aggregate(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_live, "_POLL_S", 0.01)
    await stand.live.stop()
    one, above, door = await stand.counter(), await stand.counter(), Door()
    stand.live._ending.clear()
    stand.live._poller = asyncio.create_task(stand.live._poll())
    async with following(stand, one, door, woken_by=[above]) as stream:
        assert [(await anext(stream)).id, (await anext(stream)).id] == [1, 2]
        silent = asyncio.ensure_future(anext(stream))
        await door.until_asked()  # The first poll takes every position for a change.
        await stand.increase(above)
        await door.until_asked()
        door.open = False
        await stand.increase(above)
        with pytest.raises(StopAsyncIteration):
            await silent
