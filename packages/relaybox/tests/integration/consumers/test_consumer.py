"""What a consumer does while everything is up."""

import asyncio
from collections.abc import Callable
from uuid import UUID

import pytest
import structlog
from relaybox.consumers import (
    ConsumerSignal,
    EnvelopeInvalid,
    EventTransaction,
    HandlerFailed,
    subscribe,
)
from relaybox.consumers._processor import _SQL
from relaybox.db import Database, executor_of
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import CREATED, REQUESTED, effects, make_event, publish, publish_raw, record_effect
from tests.fixtures.groups import committed_offsets

COMMITTED = ConsumerSignal.COMMITTED


@pytest.fixture
def send(kafka_settings: KafkaSettings, topic: str) -> Callable[..., None]:
    return lambda *events: publish(kafka_settings, topic, events)


async def test_consumer_applies_event_and_commits_its_offset(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, send, start_consumer
) -> None:
    event = make_event()
    async with start_consumer(record_effect) as running:
        send(event)
        await running.signals.wait_for(COMMITTED)
        await running.stopped()
        assert running.consumer.statistics().handled == 1
    assert await effects(database) == [event.event_id]
    assert committed_offsets(kafka_settings, topic, group) == 1


async def test_consumer_commits_offsets_while_running(send, start_consumer) -> None:
    async with start_consumer(record_effect) as running:
        send(make_event())
        await running.signals.wait_for(ConsumerSignal.OFFSETS_COMMITTED)
        assert running.signals.counts[COMMITTED] == 1


@pytest.mark.guarantee("G40")
async def test_offset_is_never_committed_before_the_effect(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    """Also not at a stop: an event that takes too long is rolled back, and comes again."""
    # The keys are in different partitions.
    held, others = make_event(aggregate_id="a"), [make_event(aggregate_id="c") for _ in range(5)]
    in_hand = asyncio.Event()

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event == held:
            in_hand.set()
            await asyncio.Event().wait()

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [held])
        await asyncio.wait_for(in_hand.wait(), WAIT_S)
        publish(kafka_settings, topic, others)
        await running.signals.wait_for(COMMITTED, len(others))
        await running.stopped()
    assert await effects(database) == [event.event_id for event in others]
    assert committed_offsets(kafka_settings, topic, group) == len(others)


@pytest.mark.guarantee("G40")
async def test_redelivery_has_no_second_effect(database: Database, send, start_consumer) -> None:
    event = make_event()
    async with start_consumer(record_effect) as running:
        send(event, event)
        await running.signals.wait_for(ConsumerSignal.ALREADY_DONE)
        assert running.consumer.statistics().already_done == 1
    assert await effects(database) == [event.event_id]


@pytest.mark.guarantee("G40")
async def test_processed_event_is_recorded_per_group(
    database: Database, group: str, send, start_consumer
) -> None:
    event = make_event()
    async with (
        start_consumer(record_effect) as one,
        start_consumer(record_effect, group=f"{group}-b") as other,
    ):
        send(event)
        await one.signals.wait_for(COMMITTED)
        await other.signals.wait_for(COMMITTED)
    assert await effects(database) == [event.event_id, event.event_id]


@pytest.mark.guarantee("G40")
async def test_failed_effect_leaves_no_record(database: Database, send, start_consumer) -> None:
    event = make_event()
    failures = iter([RuntimeError("once")])

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        for failure in failures:
            raise failure

    async with start_consumer(handler) as running:
        send(event)
        await running.signals.wait_for(ConsumerSignal.RETRYING)
        assert await effects(database) == []
        await running.signals.wait_for(COMMITTED)
    assert await effects(database) == [event.event_id]


@pytest.mark.guarantee("G40")
async def test_two_consumers_of_one_event_have_one_effect(
    database: Database,
    group: str,
    kafka_settings: KafkaSettings,
    make_topic,
    send,
    start_consumer,
    topic: str,
) -> None:
    """As after a rebalance: the former owner has the event in hand while the next one reads it again."""
    event = make_event()
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    async def slow(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        in_hand.set()
        await go_on.wait()

    async with start_consumer(slow):
        send(event)
        await asyncio.wait_for(in_hand.wait(), WAIT_S)
        claim = asyncio.create_task(claim_beside(database, group, event.event_id))
        await until_a_transaction_waits_for_a_lock(database)
        go_on.set()
        assert await claim is False
    assert await effects(database) == [event.event_id]


async def claim_beside(database: Database, group: str, event_id: UUID) -> bool:
    """What the other consumer does first; True when it may go on to the effect."""

    async def claim(db: AsyncSession) -> bool:
        return bool(await executor_of(db).fetch(_SQL["claim_events"], group, [event_id], [""], [None]))

    return await database.run_in_transaction(claim)


async def until_a_transaction_waits_for_a_lock(database: Database) -> None:
    async with asyncio.timeout(WAIT_S), database.connection() as connection:
        waiting = 0
        while not waiting:
            waiting = await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted")


async def test_events_of_one_aggregate_are_processed_in_order(
    database: Database, send, start_consumer
) -> None:
    events = [make_event(aggregate_id="one", version=version) for version in range(1, 101)]
    async with start_consumer(record_effect) as running:
        send(*events)
        await running.signals.wait_for(COMMITTED, len(events))
    assert await effects(database) == [event.event_id for event in events]


async def test_retry_keeps_the_order_and_delays_no_other_partition(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    blocked = [make_event(aggregate_id="blocked", version=version) for version in (1, 2)]
    others = [make_event() for _ in range(20)]
    failures = iter([RuntimeError("once")])

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        if event == blocked[0]:
            for failure in failures:
                raise failure
        await record_effect(event, unit)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, blocked + others)
        await running.signals.wait_for(COMMITTED, 22)
    done = await effects(database)
    assert done.index(blocked[0].event_id) < done.index(blocked[1].event_id)
    assert done.index(blocked[0].event_id) > 5


async def test_other_types_are_skipped_by_header_without_parsing(
    kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    async with start_consumer(record_effect) as running:
        publish_raw(kafka_settings, topic, [("key", b"not even json", CREATED)])
        await running.signals.wait_for(ConsumerSignal.OFFSETS_COMMITTED)
        assert running.consumer.statistics().skipped == 1
        assert running.signals.counts[ConsumerSignal.TYPE_NOT_SUBSCRIBED] == 0


async def test_type_without_header_is_read_from_the_envelope(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    wanted, other = make_event(REQUESTED, aggregate_id="a"), make_event(CREATED, aggregate_id="a")
    async with start_consumer(record_effect) as running:
        raw = [("a", event.model_dump_json().encode(), None) for event in (other, wanted)]
        publish_raw(kafka_settings, topic, raw)
        await running.signals.wait_for(COMMITTED)
        assert running.signals.counts[ConsumerSignal.TYPE_NOT_SUBSCRIBED] == 1
    assert await effects(database) == [wanted.event_id]


async def test_message_that_is_no_event_stops_the_consumer_before_it(
    kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    good = make_event(aggregate_id="a")
    handler = subscribe(REQUESTED, group=group, on_failure="stop")(record_effect)
    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [good])
        publish_raw(kafka_settings, topic, [("a", b'{"secret": "content"', REQUESTED)])
        with pytest.raises(EnvelopeInvalid, match="its value is not JSON") as stopped:
            await running.ended()
    assert "secret" not in str(stopped.value)
    assert f"{topic}[{stopped.value.partition}]@1" in str(stopped.value)
    assert committed_offsets(kafka_settings, topic, group) == 1


async def test_exhausted_handler_stops_the_consumer_before_its_offset(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    good, bad = make_event(aggregate_id="a"), make_event(aggregate_id="a", version=2)

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        if event.event_id == bad.event_id:
            raise RuntimeError("always")
        await record_effect(event, unit)

    stopping = subscribe(REQUESTED, group=group, on_failure="stop")(handler)
    async with start_consumer(stopping) as running:
        publish(kafka_settings, topic, [good, bad])
        with pytest.raises(HandlerFailed) as stopped:
            await running.ended()
    assert (stopped.value.event_id, stopped.value.offset) == (bad.event_id, 1)
    assert isinstance(stopped.value.__cause__, RuntimeError)
    assert running.signals.counts[ConsumerSignal.RETRYING] == 3
    assert committed_offsets(kafka_settings, topic, group) == 1
    async with start_consumer(record_effect) as restarted:
        await restarted.signals.wait_for(COMMITTED)
    assert await effects(database) == [good.event_id, bad.event_id]


async def test_graceful_stop_finishes_only_the_current_event(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    first, second = make_event(aggregate_id="a"), make_event(aggregate_id="a", version=2)
    in_hand, go_on = asyncio.Event(), asyncio.Event()

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        in_hand.set()
        await go_on.wait()
        await record_effect(event, unit)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [first, second])
        await asyncio.wait_for(in_hand.wait(), WAIT_S)
        running.consumer.stop()
        stopped = asyncio.create_task(running.ended())
        go_on.set()
        await stopped
    assert await effects(database) == [first.event_id]
    assert committed_offsets(kafka_settings, topic, group) == 1


async def test_stopped_member_releases_its_partitions_at_once(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    async with start_consumer(record_effect) as staying:
        async with start_consumer(record_effect):
            await staying.signals.wait_for(ConsumerSignal.REVOKED)
            assert staying.consumer.statistics().partitions < 4
        while staying.consumer.statistics().partitions < 4:
            await staying.signals.wait_for_next(ConsumerSignal.ASSIGNED)
        events = [make_event() for _ in range(20)]
        publish(kafka_settings, topic, events)
        await staying.signals.wait_for(COMMITTED, 20)
    assert sorted(await effects(database)) == sorted(event.event_id for event in events)


async def test_after_commit_action_runs_after_the_commit(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    seen: list[int] = []

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        unit.after_commit(lambda: seen.append(running.signals.counts[COMMITTED]))
        assert seen == []

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [make_event()])
        await running.signals.wait_for(ConsumerSignal.OFFSETS_COMMITTED)
    assert seen == [1]


async def test_handler_log_lines_have_the_ids_of_the_event(
    kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    event = make_event()
    bound: list[dict[str, object]] = []

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        bound.append(dict(structlog.contextvars.get_contextvars()))

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [event])
        await running.signals.wait_for(COMMITTED)
    assert bound[0]["event_id"] == str(event.event_id)
    assert bound[0]["correlation_id"] == str(event.correlation_id)


async def test_full_partition_queue_is_paused_and_resumed(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relaybox.consumers._key_queue._MESSAGES_MAX", 500)
    events = [make_event(aggregate_id="a", version=version) for version in range(1, 1_301)]
    go_on = asyncio.Event()

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await go_on.wait()
        await record_effect(event, unit)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(ConsumerSignal.PAUSED)
        assert running.consumer.statistics().buffered < len(events)
        go_on.set()
        await running.signals.wait_for(ConsumerSignal.RESUMED)
        await running.signals.wait_for(COMMITTED, len(events))
    assert await effects(database) == [event.event_id for event in events]


async def test_paused_partition_is_read_again_after_it_returns(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    """A second member takes partitions that the first has paused, and gives them back."""
    events = [make_event(aggregate_id=f"key {number % 400}") for number in range(4_000)]
    go_on = asyncio.Event()

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await go_on.wait()
        await record_effect(event, unit)

    async with start_consumer(handler) as staying:
        publish(kafka_settings, topic, events)
        async with asyncio.timeout(WAIT_S):
            while staying.consumer.statistics().buffered < 4 * 500:  # noqa: ASYNC110 - one signal for all
                await asyncio.sleep(0.05)
        await staying.signals.wait_for(ConsumerSignal.PAUSED)
        async with start_consumer(handler):
            await staying.signals.wait_for(ConsumerSignal.REVOKED)
        while staying.consumer.statistics().partitions < 4:
            await staying.signals.wait_for_next(ConsumerSignal.ASSIGNED)
        go_on.set()
        await staying.signals.wait_for(COMMITTED, len(events))
    assert sorted(await effects(database)) == sorted(event.event_id for event in events)
