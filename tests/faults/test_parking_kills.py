"""Consumers that are killed while they park and replay: nothing is lost, doubled or reordered."""

import asyncio
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import pytest
from relaybox.consumers import Consumer, ConsumerSignal, subscribe
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.crashing_process import ENDED_BY_HANDLER
from tests.fixtures.events import REQUESTED, effects, make_effects_table, make_event, publish
from tests.fixtures.parking_process import NO_RETRY_PAUSES, POISON, poisoned_handler
from tests.fixtures.processes import python_process, server_environment
from tests.fixtures.waiting import eventually

_EVENTS = 3
SHORT_AND_LONG = [1, pytest.param(50, marks=[pytest.mark.long, pytest.mark.timeout(3_600)])]


class Scene:
    """A group with a topic, two keys of which one is poisoned, and its consumers."""

    def __init__(
        self, database: Database, postgres: PostgresSettings, kafka: KafkaSettings, topic: str
    ) -> None:
        self.database, self.topic = database, topic
        self.group = f"group-{uuid4().hex[:8]}"
        self._kafka = kafka
        self._environment = server_environment(postgres, kafka)

    def publish(self) -> tuple[list[EventEnvelope], list[EventEnvelope]]:
        """Publish events of a poisoned and of another key, and return them."""
        poisoned, good = (
            [make_event(aggregate_id=key, version=version) for version in range(1, _EVENTS + 1)]
            for key in (f"{POISON}-{uuid4()}", f"good-{uuid4()}")
        )
        publish(self._kafka, self.topic, [one for pair in zip(poisoned, good, strict=True) for one in pair])
        return poisoned, good

    async def exit_codes(self, signal_: ConsumerSignal, occurrences: int) -> list[int]:
        """Run one consumer process after the other until one stops by itself; return their exit codes.

        The handler ends each process at the first event of a poisoned key.
        """
        arguments = (self.group, self.topic, signal_, str(occurrences))
        codes: list[int] = []
        while 0 not in codes:
            assert len(codes) < 10, "the processes end again and again"
            module = "tests.fixtures.crashing_process"
            async with python_process(module, *arguments, environment=self._environment) as process:
                codes.append(await process.exit_code())
        return codes

    async def kill_at(self, point: str, occurrence: int, state: str) -> None:
        """Run a consumer process until it kills itself."""
        arguments = (self.group, self.topic, point, str(occurrence), state)
        module = "tests.fixtures.parking_process"
        async with python_process(module, *arguments, environment=self._environment) as process:
            assert await process.exit_code() == -signal.SIGKILL

    @asynccontextmanager
    async def consumer(self, repaired: asyncio.Event) -> AsyncGenerator[None]:
        """Run a consumer in this process."""
        handler = subscribe(REQUESTED, group=self.group)(poisoned_handler(repaired))
        consumer = Consumer(self.database, self._kafka, [handler], topics=[self.topic])
        with NO_RETRY_PAUSES:
            work = asyncio.create_task(consumer.run())
            try:
                yield
            finally:
                consumer.stop()
                await asyncio.wait_for(work, WAIT_S)

    async def request_replay(self) -> None:
        async with self.database.connection() as connection:
            await connection.fetch(
                "UPDATE dead_letters SET status = 'REPLAY_REQUESTED' WHERE status = 'PARKED'"
            )

    async def wait_until_finished(self, events: list[EventEnvelope]) -> None:
        """Return once each event took effect or is parked."""
        ids = {event.event_id for event in events}

        async def finished() -> bool:
            return ids <= {*await effects(self.database), *await self._parked()}

        await eventually("all events finished", finished)

    async def wait_until_effective(self, events: list[EventEnvelope]) -> None:
        ids = {event.event_id for event in events}

        async def effective() -> bool:
            return ids <= set(await effects(self.database))

        await eventually("all events effective", effective)

    async def _parked(self) -> list[UUID]:
        async with self.database.connection() as connection:
            rows = await connection.fetch("SELECT event_id FROM dead_letters ORDER BY id")
        return [row["event_id"] for row in rows]

    async def check(self, *keys: list[EventEnvelope]) -> None:
        """Check that each event of each key has one effect, in the order of the key."""
        found = await effects(self.database)
        for events in keys:
            ids = [event.event_id for event in events]
            assert [one for one in found if one in ids] == ids
        async with self.database.connection() as connection:
            assert await connection.fetch("SELECT id FROM dead_letters WHERE status <> 'REPLAYED'") == []


@pytest.fixture
async def scene(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> Scene:
    await make_effects_table(postgres_settings)
    return Scene(database, postgres_settings, kafka_settings, topic)


@pytest.mark.guarantee("G40", "G41", "G42")
@pytest.mark.parametrize("kills", SHORT_AND_LONG)
@pytest.mark.parametrize(
    ("point", "occurrences"),
    [
        ("claimed", 6),
        ("handled", 3),
        (ConsumerSignal.COMMITTED, 3),
        ("on_parked", 1),
        (ConsumerSignal.PARKED, 3),
        (ConsumerSignal.OFFSETS_COMMITTED, 1),
    ],
)
async def test_consumer_killed_while_parking_loses_and_doubles_nothing(
    scene: Scene, point: str, occurrences: int, kills: int
) -> None:
    for kill in range(kills):
        poisoned, good = scene.publish()
        await scene.kill_at(point, 1 + kill % occurrences, "poisoned")
        repaired = asyncio.Event()
        async with scene.consumer(repaired):
            await scene.wait_until_finished([*poisoned, *good])
            repaired.set()
            await scene.request_replay()
            await scene.wait_until_effective(poisoned)
        await scene.check(poisoned, good)


@pytest.mark.guarantee("G40", "G41", "G42")
@pytest.mark.parametrize("kills", SHORT_AND_LONG)
@pytest.mark.parametrize("point", ["claimed", "handled", ConsumerSignal.REPLAYED])
async def test_consumer_killed_while_replaying_loses_and_doubles_nothing(
    scene: Scene, point: str, kills: int
) -> None:
    for kill in range(kills):
        poisoned, good = scene.publish()
        async with scene.consumer(asyncio.Event()):
            await scene.wait_until_finished([*poisoned, *good])
        await scene.request_replay()
        await scene.kill_at(point, 1 + kill % _EVENTS, "repaired")
        repaired = asyncio.Event()
        repaired.set()
        async with scene.consumer(repaired):
            await scene.wait_until_effective(poisoned)
        await scene.check(poisoned, good)


@pytest.mark.guarantee("G41", "G42")
async def test_message_whose_handler_ends_the_process_is_parked_and_replayed(scene: Scene) -> None:
    """Four processes end: the first does not watch its messages, the others call this handler alone."""
    poisoned, good = scene.publish()
    codes = await scene.exit_codes(ConsumerSignal.PARKED, len(poisoned))
    assert codes == [*[ENDED_BY_HANDLER] * 4, 0]
    async with scene.database.connection() as connection:
        letters = await connection.fetch("SELECT error_code FROM dead_letters ORDER BY id")
    assert [row["error_code"] for row in letters] == ["HANDLER_ENDED_PROCESS", "KEY_BLOCKED", "KEY_BLOCKED"]
    repaired = asyncio.Event()
    repaired.set()
    async with scene.consumer(repaired):
        await scene.wait_until_finished(good)
        await scene.request_replay()
        await scene.wait_until_effective(poisoned)
    await scene.check(poisoned, good)


@pytest.mark.guarantee("G41", "G42")
async def test_letter_whose_replay_ends_the_process_is_parked_again(scene: Scene) -> None:
    poisoned, good = scene.publish()
    async with scene.consumer(asyncio.Event()):
        await scene.wait_until_finished([*poisoned, *good])
    await scene.request_replay()
    codes = await scene.exit_codes(ConsumerSignal.REPLAY_FAILED, 1)
    assert codes == [*[ENDED_BY_HANDLER] * 4, 0]
    async with scene.database.connection() as connection:
        letters = await connection.fetch("SELECT error_code, status FROM dead_letters ORDER BY id")
    assert dict(letters[0]) == {"error_code": "HANDLER_ENDED_PROCESS", "status": "PARKED"}
    repaired = asyncio.Event()
    repaired.set()
    async with scene.consumer(repaired):
        await scene.request_replay()
        await scene.wait_until_effective(poisoned)
    await scene.check(poisoned, good)
