"""Kafka clients that lose the coordinator of their group."""

import asyncio
import threading
from pathlib import Path

import pytest
from relaybox.consumers import Consumer, ConsumerSignal, KafkaClientHung, check_consumer, subscribe
from relaybox.consumers._group_member import GroupMember, PollRequest, PollResult
from relaybox.db import Database
from relaybox.local import LocalKafka
from relaybox.settings import KafkaSettings
from relaybox.telemetry import HealthState
from structlog.testing import capture_logs

from tests.fixtures.events import REQUESTED, effects, make_event, publish, record_effect
from tests.fixtures.signal_recorder import SignalRecorder

COMMITTED, REPLACED = ConsumerSignal.COMMITTED, ConsumerSignal.KAFKA_CLIENT_REPLACED


class Hanging:
    """Polls of Kafka clients that block, as calls to a client whose main thread is deadlocked."""

    def __init__(self, clients: int) -> None:
        """The polls of the first *clients* clients hang."""
        self._clients = clients
        self._poll = GroupMember.poll
        self.released = threading.Event()

    def poll(self, member: GroupMember, request: PollRequest, wait_s: float) -> PollResult:
        if self._clients > 0:
            self._clients -= 1
            self.released.wait()
        return self._poll(member, request, wait_s)


def hang(monkeypatch: pytest.MonkeyPatch, clients: int) -> Hanging:
    hanging = Hanging(clients)
    monkeypatch.setattr(GroupMember, "poll", lambda *arguments: hanging.poll(*arguments))
    monkeypatch.setattr("relaybox.consumers._consumer._POLL_S_MAX", 0.5)
    monkeypatch.setattr("relaybox.consumers._consumer._CLOSE_S", 0.1)
    return hanging


@pytest.mark.guarantee("G40")
async def test_client_whose_calls_hang_is_replaced(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hanging, event = hang(monkeypatch, clients=1), make_event()
    publish(kafka_settings, topic, [event])
    async with start_consumer(record_effect, assigned=False) as running:
        await running.signals.wait_for(REPLACED)
        monkeypatch.setattr("relaybox.consumers._consumer._POLL_S_MAX", 90.0)
        hanging.released.set()
        await running.signals.wait_for(COMMITTED)
        assert running.consumer.statistics().clients_replaced >= 1
    assert await effects(database) == [event.event_id]


async def test_consumer_ends_after_several_clients_that_hang(
    start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of the four clients fails to leave its group, once."""
    hanging = hang(monkeypatch, clients=100)
    with capture_logs() as lines:
        async with start_consumer(record_effect, assigned=False) as running:
            with pytest.raises(KafkaClientHung):
                await running.ended()
    hanging.released.set()
    assert sum(line["event"].startswith("group not left") for line in lines) == 4


async def test_clients_that_hang_for_a_while_do_not_end_the_consumer(
    start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.consumers._consumer._HUNG_CLIENTS_MAX", 0)
    hanging = hang(monkeypatch, clients=3)
    # Each hanging call returns before the next client hangs.
    leave = Consumer._leave

    async def leave_late(consumer: Consumer) -> None:
        await leave(consumer)
        hanging.released.set()
        for executor in consumer._hung:
            await asyncio.to_thread(executor._thread.join)
        hanging.released.clear()

    monkeypatch.setattr(Consumer, "_leave", leave_late)
    async with start_consumer(record_effect, assigned=False) as running:
        await running.signals.wait_for(REPLACED, 3)


@pytest.mark.slow
async def test_consumer_reports_a_group_without_coordinator(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: str
) -> None:
    """A single broker cannot create the topic of offsets, so that no group has a coordinator."""
    monkeypatch.setattr("relaybox.consumers._coordinator_clock.COORDINATOR_LOST_S", 6.0)
    monkeypatch.setattr("relaybox.consumers._statistics.COORDINATOR_LOST_S", 6.0)
    broker = LocalKafka(tmp_path / "kafka", properties={"offsets.topic.replication.factor": "3"})
    await broker.start()
    signals = SignalRecorder()
    settings = KafkaSettings.model_validate({"host": broker.host, "port": broker.port})
    consumer = Consumer(
        database, settings, [subscribe(REQUESTED, group=group)(record_effect)], on_signal=signals
    )
    work = asyncio.create_task(consumer.run())
    try:
        await signals.wait_for(REPLACED, 2)
        assert (await check_consumer(consumer.statistics)()).state is HealthState.DEGRADED
        assert signals.counts[ConsumerSignal.KAFKA_UNAVAILABLE] == 0
    finally:
        consumer.stop()
        await work
        await broker.stop()
