"""A member joins and another one leaves while events are retried, parked and replayed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction
from relaybox.db import Database
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.events import effects, make_event, publish, record_effect
from tests.fixtures.letters import letter_rows, letter_statuses
from tests.fixtures.waiting import eventually

KEYS = [f"key {number}" for number in range(8)]
#: Keys whose events cannot be processed until the handler is repaired; half of all.
POISONED = KEYS[::2]


class Handler:
    """A handler that fails for half of the keys until it is repaired."""

    def __init__(self) -> None:
        self.repaired = False

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event.aggregate_id in POISONED and not self.repaired:
            raise RuntimeError("poison")


class Producer:
    """Publishes events of all keys, one version after the other."""

    def __init__(self, settings: KafkaSettings, topic: str) -> None:
        self._settings, self._topic = settings, topic
        self.sent: dict[str, list[EventEnvelope]] = {key: [] for key in KEYS}

    async def publish(self) -> None:
        """Publish the next event of each key."""
        events = [make_event(aggregate_id=key, version=len(self.sent[key]) + 1) for key in KEYS]
        await asyncio.to_thread(publish, self._settings, self._topic, events)
        for event in events:
            self.sent[event.aggregate_id].append(event)

    @asynccontextmanager
    async def publishing(self) -> AsyncIterator[None]:
        """Publish without end during an ``async with`` block."""
        stopping = asyncio.Event()

        async def run() -> None:
            while not stopping.is_set():
                await self.publish()

        task = asyncio.create_task(run())
        try:
            yield
        finally:
            stopping.set()
            await task


async def unfinished(database: Database, sent: dict[str, list[EventEnvelope]]) -> set[Any]:
    """Return the ids of the events that neither took effect nor are parked."""
    parked = {row["event_id"] for row in await letter_rows(database)}
    return {event.event_id for events in sent.values() for event in events} - {
        *await effects(database),
        *parked,
    }


async def check(database: Database, sent: dict[str, list[EventEnvelope]]) -> None:
    """Check that each event has one effect, in the order of its key."""
    found = await effects(database)
    assert len(found) == sum(map(len, sent.values()))
    for events in sent.values():
        ids = [event.event_id for event in events]
        assert [one for one in found if one in ids] == ids


async def request_replay(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch("UPDATE dead_letters SET status = 'REPLAY_REQUESTED' WHERE status = 'PARKED'")


async def wait_until_all_effective(database: Database, sent: dict[str, list[EventEnvelope]]) -> None:
    async def effective() -> bool:
        return len(await effects(database)) >= sum(map(len, sent.values())) and not set(
            await letter_statuses(database)
        ) & {"PARKED", "REPLAY_REQUESTED"}

    await eventually("all events effective", effective)


@pytest.fixture
def producer(kafka_settings: KafkaSettings, topic: str) -> Producer:
    return Producer(kafka_settings, topic)


@asynccontextmanager
async def members_change(
    start_consumer: Any, handler: Handler, producer: Producer, begun: Callable[[Any], Awaitable[None]]
) -> AsyncIterator[None]:
    """Let a second member join after *begun*, and the first one leave; then the second one is alone."""
    async with AsyncExitStack() as second:
        async with start_consumer(handler) as first, producer.publishing():
            await begun(first.signals)
            revoked = first.signals.wait_for_next(ConsumerSignal.REVOKED)
            await second.enter_async_context(start_consumer(handler))
            await revoked
            await first.stopped()
        yield


@pytest.mark.guarantee("G40", "G42")
async def test_events_retried_during_a_rebalance_have_one_effect(
    database: Database, producer: Producer, start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.05,) * 10_000)
    handler = Handler()

    async def begun(signals: Any) -> None:
        await signals.wait_for(ConsumerSignal.RETRYING, len(POISONED))

    async with members_change(start_consumer, handler, producer, begun):
        handler.repaired = True
        await wait_until_all_effective(database, producer.sent)
    await check(database, producer.sent)
    assert await letter_rows(database) == []


@pytest.mark.guarantee("G40", "G41", "G42")
async def test_events_parked_during_a_rebalance_are_replayed_in_order(
    database: Database, producer: Producer, start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0,) * 3)
    handler = Handler()

    async def begun(signals: Any) -> None:
        await signals.wait_for(ConsumerSignal.PARKED, 2 * len(POISONED))

    async with members_change(start_consumer, handler, producer, begun):

        async def finished() -> bool:
            return not await unfinished(database, producer.sent)

        await eventually("all events finished", finished)
        parked = [row["event_id"] for row in await letter_rows(database)]
        for key in POISONED:
            ids = [event.event_id for event in producer.sent[key]]
            assert [one for one in parked if one in ids] == ids
        handler.repaired = True
        await request_replay(database)
        await wait_until_all_effective(database, producer.sent)
    await check(database, producer.sent)


@pytest.mark.guarantee("G40", "G42")
async def test_letters_replayed_during_a_rebalance_have_one_effect(
    database: Database, producer: Producer, start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While further events of their keys arrive, which are parked behind them."""
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0,) * 3)
    handler = Handler()
    async with start_consumer(handler) as running:
        for _ in range(50):
            await producer.publish()
        await running.signals.wait_for(ConsumerSignal.PARKED, 50 * len(POISONED))
    handler.repaired = True
    await request_replay(database)

    async def begun(signals: Any) -> None:
        await signals.wait_for(ConsumerSignal.REPLAYED, len(POISONED))

    async with members_change(start_consumer, handler, producer, begun):
        await wait_until_all_effective(database, producer.sent)
    await check(database, producer.sent)
