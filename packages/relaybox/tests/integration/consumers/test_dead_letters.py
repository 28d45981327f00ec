"""Messages that cannot be processed are parked, in order, and replayed on request."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from relaybox.consumers import Consumer, ConsumerSignal, EventTransaction, Handler, Subscription, subscribe
from relaybox.db import Database, executor_of
from relaybox.events import erase
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, effects, make_event, publish, publish_raw, record_effect

COMMITTED, PARKED, REPLAYED = ConsumerSignal.COMMITTED, ConsumerSignal.PARKED, ConsumerSignal.REPLAYED


class Poison:
    """A handler that fails for some events until they are repaired."""

    def __init__(self, *events: EventEnvelope, failure: Callable[[], Awaitable[None]] | None = None) -> None:
        self.bad = {event.event_id for event in events}
        self._failure = failure

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event.event_id not in self.bad:
            return
        if self._failure is None:
            raise RuntimeError("token=hidden: always")
        await self._failure()


def once(handler: Handler, group: str, **options: Any) -> Subscription:
    """Subscribe with a handler that is not retried: the pauses of retries are tested elsewhere."""
    return subscribe(REQUESTED, group=group, **options)(handler)


@pytest.fixture
def no_retry_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))


pytestmark = pytest.mark.usefixtures("no_retry_pauses")


async def letters(database: Database) -> list[dict[str, Any]]:
    async with database.connection() as connection:
        return [dict(row) for row in await connection.fetch("SELECT * FROM dead_letters ORDER BY id")]


async def request_replay(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch("UPDATE dead_letters SET status = 'REPLAY_REQUESTED' WHERE status = 'PARKED'")


def statuses(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["reason"], row["status"]) for row in found]


@pytest.mark.guarantee("G41")
async def test_failed_message_is_parked_with_its_error_and_content(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    bad, good = make_event(aggregate_id="a"), make_event(aggregate_id="b")
    async with start_consumer(Poison(bad)) as running:
        publish(kafka_settings, topic, [bad, good])
        await running.signals.wait_for(PARKED)
        await running.signals.wait_for(COMMITTED)
        assert running.signals.counts[ConsumerSignal.RETRYING] == 3
    assert await effects(database) == [good.event_id]
    [letter] = await letters(database)
    assert (letter["consumer_group"], letter["topic"], letter["message_offset"]) == (group, topic, 0)
    assert (letter["event_id"], letter["event_type"], letter["message_key"]) == (
        bad.event_id,
        REQUESTED,
        b"a",
    )
    assert (letter["aggregate_type"], letter["aggregate_id"]) == (bad.aggregate_type, "a")
    assert (letter["reason"], letter["error_code"], letter["attempts"]) == (
        "HANDLER_FAILED",
        "RuntimeError",
        4,
    )
    assert letter["error"] == "RuntimeError: token=[redacted] always"
    assert letter["value"] == bad.model_dump_json().encode()
    assert letter["headers"] == [["ce_type", REQUESTED]]


@pytest.mark.guarantee("G42")
async def test_later_messages_of_the_key_are_parked_behind_it(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    blocked = [make_event(aggregate_id="a", version=version) for version in (1, 2, 3)]
    others = [make_event(aggregate_id="b", version=version) for version in (1, 2, 3)]
    async with start_consumer(Poison(blocked[0])) as running:
        publish(kafka_settings, topic, [*blocked, *others])
        await running.signals.wait_for(PARKED, 3)
        await running.signals.wait_for(COMMITTED, 3)
    assert await effects(database) == [event.event_id for event in others]
    found = await letters(database)
    assert [row["event_id"] for row in found] == [event.event_id for event in blocked]
    assert statuses(found) == [("HANDLER_FAILED", "PARKED"), ("BLOCKED", "PARKED"), ("BLOCKED", "PARKED")]


@pytest.mark.guarantee("G42")
async def test_replay_applies_a_key_in_order_and_lets_it_flow(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2, 3, 4)]
    handler = Poison(events[0])
    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, events[:3])
        await running.signals.wait_for(PARKED, 3)
        handler.bad.clear()
        await request_replay(database)
        await running.signals.wait_for(REPLAYED, 3)
        publish(kafka_settings, topic, events[3:])
        await running.signals.wait_for(COMMITTED)
    assert await effects(database) == [event.event_id for event in events]
    assert {row["status"] for row in await letters(database)} == {"REPLAYED"}


@pytest.mark.guarantee("G42")
async def test_replay_of_the_first_letter_replays_those_behind_it(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2, 3)]
    handler = Poison(events[0])
    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(PARKED, 3)
        handler.bad.clear()
        async with database.connection() as connection:
            await connection.fetch(
                "UPDATE dead_letters SET status = 'REPLAY_REQUESTED' WHERE reason = 'HANDLER_FAILED'"
            )
        await running.signals.wait_for(REPLAYED, 3)
    assert await effects(database) == [event.event_id for event in events]


@pytest.mark.guarantee("G41")
async def test_failed_replay_parks_the_letter_again(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2)]
    async with start_consumer(Poison(*events)) as running:
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(PARKED, 2)
        await request_replay(database)
        await running.signals.wait_for(ConsumerSignal.REPLAY_FAILED)
    first, _ = await letters(database)
    assert first["status"] == "PARKED"
    assert (first["attempts"], first["reason"]) == (8, "HANDLER_FAILED")
    assert await effects(database) == []
    assert statuses(await letters(database))[1] == ("BLOCKED", "REPLAY_REQUESTED")


async def test_letter_whose_event_was_erased_can_be_replayed(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    bad = make_event(aggregate_id="a")
    replayed: list[EventEnvelope] = []

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        if not event.erased:
            raise RuntimeError("not erased")
        replayed.append(event)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(PARKED)
        await database.run_in_transaction(
            lambda db: erase(db, bad.aggregate_type, ["a"], actor="ann", reason="purged"),
            isolation="READ COMMITTED",
        )
        await request_replay(database)
        await running.signals.wait_for(REPLAYED)
    assert [event.event_id for event in replayed] == [bad.event_id]


@pytest.mark.guarantee("G40")
async def test_redelivered_dead_letter_has_no_effect(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    bad, other = make_event(aggregate_id="a"), make_event(aggregate_id="b")
    async with start_consumer(Poison(bad)) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(PARKED)
        publish(kafka_settings, topic, [bad, other])
        await running.signals.wait_for(COMMITTED)
        await running.stopped()
    assert len(await letters(database)) == 1
    assert await effects(database) == [other.event_id]


@pytest.mark.guarantee("G41")
async def test_message_that_is_not_an_event_is_parked(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    behind, other = make_event(aggregate_id="a"), make_event(aggregate_id="b")
    async with start_consumer(record_effect) as running:
        publish_raw(kafka_settings, topic, [("a", b"\xff\x00 not an event", REQUESTED)])
        publish(kafka_settings, topic, [behind, other])
        await running.signals.wait_for(PARKED, 2)
        await running.signals.wait_for(COMMITTED)
    first, second = await letters(database)
    assert (first["reason"], first["error_code"]) == ("ENVELOPE_INVALID", "ENVELOPE_INVALID")
    assert (first["event_id"], first["value"]) == (None, b"\xff\x00 not an event")
    assert (second["reason"], second["event_id"]) == ("BLOCKED", behind.event_id)
    assert await effects(database) == [other.event_id]


async def hang() -> None:
    await asyncio.Event().wait()


async def exit_process() -> None:
    raise SystemExit(3)


async def cancel() -> None:
    raise asyncio.CancelledError


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize(
    ("failure", "error_code"),
    [(hang, "HANDLER_TIMED_OUT"), (exit_process, "HANDLER_ABORTED"), (cancel, "HANDLER_ABORTED")],
)
async def test_handler_that_hangs_or_exits_is_parked(
    failure: Callable[[], Awaitable[None]],
    error_code: str,
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    start_consumer,
) -> None:
    bad, good = make_event(aggregate_id="a"), make_event(aggregate_id="b")
    handler = once(Poison(bad, failure=failure), group, handler_timeout_s=0.5)
    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [bad, good])
        await running.signals.wait_for(PARKED)
        await running.signals.wait_for(COMMITTED)
    [letter] = await letters(database)
    assert letter["error_code"] == error_code
    assert await effects(database) == [good.event_id]


async def test_large_message_is_parked_without_calling_the_handler(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    async with start_consumer(record_effect) as running:
        publish_raw(kafka_settings, topic, [("k" * 5_000, b"x" * 900_000, REQUESTED)])
        await running.signals.wait_for(PARKED)
    [letter] = await letters(database)
    assert len(letter["value"]) == 900_000
    assert len(letter["message_key"]) == 5_000


async def test_order_none_parks_only_the_failed_message(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2)]
    handler = Poison(events[0])
    async with start_consumer(once(handler, group, order="none")) as running:
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(COMMITTED)
        assert await effects(database) == [events[1].event_id]
        handler.bad.clear()
        await request_replay(database)
        await running.signals.wait_for(REPLAYED)
    assert await effects(database) == [events[1].event_id, events[0].event_id]


class FirstWaits:
    """Pass events to *handler*; the first waits until *count* messages are buffered, so that they share."""

    def __init__(self, handler: Handler, count: int) -> None:
        self._handler, self._count = handler, count
        self.consumer: asyncio.Future[Consumer] = asyncio.get_running_loop().create_future()
        self.began = asyncio.Event()

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        if not self.began.is_set():
            self.began.set()
            consumer = await self.consumer
            async with asyncio.timeout(WAIT_S):
                while consumer.statistics().buffered < self._count:  # noqa: ASYNC110 - no signal of it
                    await asyncio.sleep(0.01)
        await self._handler(event, unit)


async def test_events_of_several_keys_share_a_transaction(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    first, *events = [make_event() for _ in range(31)]
    handler = FirstWaits(record_effect, 31)
    shared = once(handler, group, transaction_events_max=10)
    async with start_consumer(shared, concurrency=1) as running:
        handler.consumer.set_result(running.consumer)
        publish(kafka_settings, topic, [first])
        await asyncio.wait_for(
            handler.began.wait(), WAIT_S
        )  # with other partitions another event may be first
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(COMMITTED, 31)
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT count(DISTINCT xmin::text) AS transactions FROM effects")
    assert row["transactions"] <= 5


async def test_shared_transaction_is_split_when_one_event_fails(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    first, *events = [make_event() for _ in range(10)]
    handler = FirstWaits(Poison(events[3]), 10)
    shared = once(handler, group, transaction_events_max=10)
    async with start_consumer(shared, concurrency=1) as running:
        handler.consumer.set_result(running.consumer)
        publish(kafka_settings, topic, [first])
        await asyncio.wait_for(
            handler.began.wait(), WAIT_S
        )  # with other partitions another event may be first
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(COMMITTED, 9)
        await running.signals.wait_for(PARKED)
        assert running.signals.counts[ConsumerSignal.SPLIT] >= 1
    effective = {event.event_id for event in (first, *events)} - {events[3].event_id}
    assert set(await effects(database)) == effective


async def test_on_parked_takes_effect_with_the_letter(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    bad = make_event()

    async def on_parked(event: EventEnvelope, failure: BaseException, unit: EventTransaction) -> None:
        assert isinstance(failure, RuntimeError)
        await record_effect(event, unit, by="parked")

    async with start_consumer(once(Poison(bad), group, on_parked=on_parked)) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(PARKED)
    assert await effects(database) == [bad.event_id]
    assert len(await letters(database)) == 1


async def test_failing_on_parked_does_not_prevent_parking(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    bad = make_event()

    async def on_parked(event: EventEnvelope, failure: BaseException, unit: EventTransaction) -> None:
        await executor_of(unit.db).fetch("SELECT 1 / 0")

    async with start_consumer(once(Poison(bad), group, on_parked=on_parked)) as running:
        publish(kafka_settings, topic, [bad])
        await running.signals.wait_for(PARKED)
    assert len(await letters(database)) == 1


async def test_keys_of_one_partition_are_processed_side_by_side(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    """Six handlers of one partition wait for each other: one after the other they would never end."""
    events = [make_event(aggregate_id=f"key {number}") for number in range(40)]
    together, most, active = asyncio.Event(), 6, 0

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        nonlocal active
        active += 1
        if active >= most:
            together.set()
        await asyncio.wait_for(together.wait(), WAIT_S)
        await record_effect(event, unit)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(COMMITTED, len(events))
    assert sorted(await effects(database)) == sorted(event.event_id for event in events)
