"""A consumer while PostgreSQL or Kafka is unreachable."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pydantic import SecretStr
from relaybox.consumers import Consumer, ConsumerSignal, EventTransaction, subscribe
from relaybox.db import Database, executor_of
from relaybox.local import LocalKafka, LocalPostgres
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.certificates import Certificates
from tests.fixtures.events import REQUESTED, effects, make_event, publish, record_effect
from tests.fixtures.outages import frozen, read_only, stopped
from tests.fixtures.signal_recorder import SignalRecorder

COMMITTED = ConsumerSignal.COMMITTED
#: What stop() promises, and what it may take at the worst (contract, section 4; G27).
_STOP_S = 10.0


async def test_consumer_survives_database_outage_without_loss_or_repeat(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    postgres_server: LocalPostgres,
    start_consumer,
) -> None:
    events = [make_event(aggregate_id="a", version=version) for version in range(1, 21)]
    async with start_consumer(record_effect) as running:
        publish(kafka_settings, topic, events[:10])
        await running.signals.wait_for(COMMITTED, 10)
        async with stopped(postgres_server):
            publish(kafka_settings, topic, events[10:])
            await running.signals.wait_for(ConsumerSignal.WAITING_FOR_DATABASE, 3)
            assert running.consumer.statistics().waiting == 1
            assert running.consumer.statistics().partitions == 4
        await running.signals.wait_for(COMMITTED, 20)
        assert running.signals.counts[ConsumerSignal.REVOKED] == 0
    assert await effects(database) == [event.event_id for event in events]


async def test_broken_connection_does_not_count_as_handler_failure(
    database: Database, kafka_settings: KafkaSettings, topic: str, start_consumer
) -> None:
    event = make_event()
    first = iter([True])

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if next(first, False):
            await executor_of(unit.db).fetch("SELECT pg_terminate_backend(pg_backend_pid())")

    async with start_consumer(handler) as running:
        waits_before_joining = running.consumer.statistics().database_waits
        publish(kafka_settings, topic, [event])
        await running.signals.wait_for(COMMITTED)
        assert running.consumer.statistics().retries == 0
        assert running.consumer.statistics().database_waits == waits_before_joining + 1
    assert await effects(database) == [event.event_id]


@pytest.mark.guarantee("G42")
async def test_consumer_without_its_database_leaves_the_partitions_to_others(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    start_consumer,
) -> None:
    events, signals = [make_event() for _ in range(20)], SignalRecorder()
    wrong = Database(postgres_settings.model_copy(update={"password": SecretStr("wrong")}))
    subscription = subscribe(REQUESTED, group=group)(record_effect)
    useless = Consumer(wrong, kafka_settings, [subscription], topics=[topic], on_signal=signals)
    work = asyncio.create_task(useless.run())
    await signals.wait_for(ConsumerSignal.WAITING_FOR_DATABASE)
    async with start_consumer(subscription) as running:
        publish(kafka_settings, topic, events)
        await running.signals.wait_for(COMMITTED, 20)
    assert signals.counts[ConsumerSignal.ASSIGNED] == 0
    assert set(await effects(database)) == {event.event_id for event in events}
    useless.stop()
    await asyncio.wait_for(work, _STOP_S)


async def test_consumer_started_without_its_database_joins_when_it_responds(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    postgres_server: LocalPostgres,
    start_consumer,
) -> None:
    event = make_event()
    publish(kafka_settings, topic, [event])
    async with AsyncExitStack() as consumer:
        async with stopped(postgres_server):
            running = await consumer.enter_async_context(start_consumer(record_effect, assigned=False))
            await running.signals.wait_for(ConsumerSignal.WAITING_FOR_DATABASE, 2)
        await running.signals.wait_for(COMMITTED)
    assert await effects(database) == [event.event_id]


async def test_consumer_waiting_for_the_database_can_be_stopped(
    kafka_settings: KafkaSettings, topic: str, postgres_server: LocalPostgres, start_consumer
) -> None:
    async with start_consumer(record_effect) as running, stopped(postgres_server):
        publish(kafka_settings, topic, [make_event()])
        await running.signals.wait_for(ConsumerSignal.WAITING_FOR_DATABASE)
        running.consumer.stop()
        await asyncio.wait_for(running.ended(), _STOP_S)


async def test_consumer_survives_broker_restart_without_loss_or_repeat(
    database: Database, kafka_settings: KafkaSettings, topic: str, kafka_server: LocalKafka, start_consumer
) -> None:
    events = [make_event(aggregate_id="a", version=version) for version in range(1, 21)]
    async with start_consumer(record_effect) as running:
        publish(kafka_settings, topic, events[:10])
        await running.signals.wait_for(COMMITTED, 10)
        async with stopped(kafka_server):
            await running.signals.wait_for(ConsumerSignal.KAFKA_UNAVAILABLE)
        publish(kafka_settings, topic, events[10:])
        await running.signals.wait_for(COMMITTED, 20)
        assert not running.consumer.statistics().kafka_unavailable
        await running.signals.wait_for_next(ConsumerSignal.OFFSETS_COMMITTED)
    assert await effects(database) == [event.event_id for event in events]


async def test_client_is_renewed_after_an_outage_took_the_partitions(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    kafka_server: LocalKafka,
    start_consumer,
    certificates: Certificates,
    tmp_path: Path,
) -> None:
    trusted, events = tmp_path / "ca.pem", [make_event(), make_event()]
    trusted.write_bytes(certificates.ca.read_bytes())
    settings = kafka_settings.model_copy(update={"ssl_ca_file": trusted})
    with capture_logs() as lines:
        async with start_consumer(record_effect, settings=settings) as running:
            publish(kafka_settings, topic, events[:1])
            await running.signals.wait_for(COMMITTED)
            async with stopped(kafka_server):
                await running.signals.wait_for(ConsumerSignal.KAFKA_UNAVAILABLE)
                trusted.write_bytes(certificates.other_ca.read_bytes())
                await running.signals.wait_for(ConsumerSignal.KAFKA_CLIENT_REPLACED)
            publish(kafka_settings, topic, events[1:])
            await running.signals.wait_for(COMMITTED, 2)
    logged = [line["event"] for line in lines]
    replaced = logged.index("certificate files renewed; Kafka client replaced")
    assert logged.index("partitions revoked") < replaced
    assert await effects(database) == [event.event_id for event in events]


async def test_kafka_away_at_the_start_is_waited_for(
    database: Database, kafka_settings: KafkaSettings, topic: str, kafka_server: LocalKafka, start_consumer
) -> None:
    event = make_event()
    publish(kafka_settings, topic, [event])
    async with AsyncExitStack() as consumer:
        async with stopped(kafka_server):
            running = await consumer.enter_async_context(start_consumer(record_effect, assigned=False))
            await running.signals.wait_for(ConsumerSignal.KAFKA_UNAVAILABLE)
        await running.signals.wait_for(COMMITTED)
    assert await effects(database) == [event.event_id]


async def test_consumer_without_a_broker_can_be_stopped(
    kafka_settings: KafkaSettings, topic: str, kafka_server: LocalKafka, start_consumer
) -> None:
    async with start_consumer(record_effect) as running:
        publish(kafka_settings, topic, [make_event()])
        await running.signals.wait_for(COMMITTED)
        async with stopped(kafka_server):
            await running.signals.wait_for(ConsumerSignal.KAFKA_UNAVAILABLE)
            running.consumer.stop()
            await asyncio.wait_for(running.ended(), _STOP_S)


async def test_frozen_broker_does_not_delay_a_stop(
    kafka_settings: KafkaSettings, topic: str, kafka_server: LocalKafka, start_consumer
) -> None:
    async with start_consumer(record_effect) as running:
        publish(kafka_settings, topic, [make_event()])
        await running.signals.wait_for(COMMITTED)
        with frozen(kafka_server):
            running.consumer.stop()
            await asyncio.wait_for(running.ended(), _STOP_S)


async def test_consumer_with_a_hanging_handler_can_be_stopped(
    kafka_settings: KafkaSettings, topic: str, postgres_server: LocalPostgres, start_consumer
) -> None:
    in_hand = asyncio.Event()

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        with frozen(postgres_server):
            in_hand.set()
            await record_effect(event, unit)

    async with start_consumer(handler) as running:
        publish(kafka_settings, topic, [make_event()])
        await asyncio.wait_for(in_hand.wait(), WAIT_S)
        running.consumer.stop()
        await asyncio.wait_for(running.ended(), _STOP_S)


async def test_consumer_finds_a_topic_created_later(
    database: Database, kafka_settings: KafkaSettings, group: str, effects_table: None
) -> None:
    topic, signals = f"late-{group}", SignalRecorder()
    consumer = Consumer(
        database,
        kafka_settings,
        [subscribe(REQUESTED, group=group)(record_effect)],
        topics=[topic],
        on_signal=signals,
    )
    work = asyncio.create_task(consumer.run())
    with AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers}) as client:
        client.create_topics([NewTopic(topic, 1, 1)])[topic].result(WAIT_S)
        publish(kafka_settings, topic, [make_event()])
        await signals.wait_for(COMMITTED)
        consumer.stop()
        await asyncio.wait_for(work, _STOP_S)
        client.delete_topics([topic])[topic].result(WAIT_S)


@pytest.mark.guarantee("G35")
async def test_consumer_waits_while_postgresql_is_read_only(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    postgres_server: LocalPostgres,
    start_consumer,
) -> None:
    event = make_event()
    async with start_consumer(record_effect) as running:
        async with read_only(postgres_server):
            publish(kafka_settings, topic, [event])
            await running.signals.wait_for(ConsumerSignal.WAITING_FOR_DATABASE, 2)
        await running.signals.wait_for(COMMITTED)
    assert await effects(database) == [event.event_id]


async def test_consumer_waits_while_its_own_statement_is_rejected(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    superuser: asyncpg.Connection,
    start_consumer,
) -> None:
    event = make_event()
    async with start_consumer(record_effect) as running:
        await superuser.execute("REVOKE INSERT ON consumed_events FROM relaybox")
        publish(kafka_settings, topic, [event])
        await running.signals.wait_for(ConsumerSignal.WAITING_FOR_DATABASE, 2)
        await superuser.execute("GRANT INSERT ON consumed_events TO relaybox")
        await running.signals.wait_for(COMMITTED)
    assert await effects(database) == [event.event_id]
