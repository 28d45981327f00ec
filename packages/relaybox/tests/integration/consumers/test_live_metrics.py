"""The statistics of a consumer at work."""

import asyncio

import pytest
from confluent_kafka import Producer
from prometheus_client import CollectorRegistry
from relaybox.consumers import (
    ConsumerCollector,
    ConsumerSignal,
    EventTransaction,
    LetterCounts,
    check_consumer,
)
from relaybox.settings import KafkaSettings
from relaybox.telemetry import HealthState
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import make_event, publish
from tests.fixtures.waiting import eventually


class Gate:
    """A handler that waits until it is opened."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        await self.open.wait()


async def fail(event: EventEnvelope, unit: EventTransaction) -> None:
    raise RuntimeError("always")


def publish_in_a_transaction(settings: KafkaSettings, topic: str, event: EventEnvelope) -> None:
    """Publish *event* and the marker of its transaction, which has an offset too."""
    producer = Producer({**settings.client_config(), "transactional.id": topic, "log_level": 0})
    producer.init_transactions(WAIT_S)
    producer.begin_transaction()
    headers = [("ce_type", event.event_type.encode())]
    producer.produce(topic, event.model_dump_json().encode(), event.aggregate_id, headers=headers)
    producer.commit_transaction(WAIT_S)


async def test_metrics_report_lag_until_messages_are_finished(
    kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    gate, events = Gate(), [make_event(aggregate_id="a") for _ in range(3)]
    async with start_consumer(gate) as running:
        registry = CollectorRegistry()
        registry.register(ConsumerCollector(running.consumer.statistics))

        def lags() -> list[tuple[float, float]]:
            found = running.consumer.statistics().lags
            return [(one.messages, one.seconds) for one in found if one.messages or one.seconds]

        def value(name: str) -> float | None:
            return registry.get_sample_value(f"relaybox_consumer_{name}", {"group": group})

        async def behind() -> bool:
            return bool((now := lags()) and now[0][0] == 3 and now[0][1] > 0)

        async def level() -> bool:
            return not lags() and all(one.messages == 0 for one in running.consumer.statistics().lags)

        await eventually("the empty partitions have no lag", level)
        publish(kafka_settings, topic, events)
        await eventually("the unfinished messages are the lag", behind)
        assert (value("unfinished_messages"), value("running_transactions")) == (3, 1)
        gate.open.set()
        await running.signals.wait_for(ConsumerSignal.COMMITTED, 3)
        await eventually("nothing is left", level)
        assert (value("handled_total"), value("handler_duration_seconds_count")) == (3, 3)


async def test_markers_of_transactions_are_no_lag(
    kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    gate = Gate()
    gate.open.set()
    async with start_consumer(gate) as running:
        await asyncio.to_thread(publish_in_a_transaction, kafka_settings, topic, make_event())
        await running.signals.wait_for(ConsumerSignal.COMMITTED)
        consumer = running.consumer

        async def read_to_the_marker() -> bool:
            return 2 in [queue.end for queue in consumer._partitions.values()]

        async def level() -> bool:
            return all(one.messages == 0 for one in consumer.statistics().lags)

        await eventually("the end behind the marker is known", read_to_the_marker)
        await eventually("the marker is read", level)


async def test_metrics_report_dead_letters_and_blocked_keys(
    kafka_settings: KafkaSettings, topic: str, start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", ())
    monkeypatch.setattr("relaybox.consumers._consumer._LETTERS_S", 0.05)
    events = [make_event(aggregate_id=key) for key in ("a", "a", "b")]
    async with start_consumer(fail) as running:
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(ConsumerSignal.PARKED, 3)

        async def counted() -> bool:
            return running.consumer.statistics().letters == LetterCounts(letters=3, keys=2)

        await eventually("the letters are counted", counted)
        assert running.consumer.statistics().parked == 3


async def test_consumer_that_finishes_nothing_is_degraded(
    kafka_settings: KafkaSettings, topic: str, group: str, start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.consumers._statistics.STALLED_S", 0.3)
    gate = Gate()
    async with start_consumer(gate) as running:
        check = check_consumer(running.consumer.statistics)
        assert (await check()).state is HealthState.OK
        publish(kafka_settings, topic, [make_event()])

        async def state_is(state: HealthState) -> bool:
            return (await check()).state is state

        await eventually("it stalls", lambda: state_is(HealthState.DEGRADED))
        assert f"group {group} has finished nothing for" in ((await check()).detail or "")
        gate.open.set()
        await eventually("it recovers", lambda: state_is(HealthState.OK))
