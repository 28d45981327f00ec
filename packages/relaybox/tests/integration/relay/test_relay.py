"""One relay on a real PostgreSQL and a real Kafka."""

import asyncio
from collections.abc import Callable
from typing import Literal, get_args

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_kafka_event
from relaybox.consumers import Consumer, EventTransaction, read_event, subscribe
from relaybox.db import Database
from relaybox.local import LocalKafka, free_port
from relaybox.relay import Relay, RelaySignal, _kafka
from relaybox.settings import Compression, KafkaSettings, RelaySettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.relays import (
    first_appearances,
    notify,
    put_events,
    read_message,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.signal_recorder import SignalRecorder

#: So long an interval that the relay does not poll within a test.
NO_POLL = RelaySettings(poll_interval=3_600)


@pytest.mark.guarantee("G30")
async def test_a_message_is_a_cloud_event_in_binary_mode(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, topic, ["a"])
    async with running(Relay(database, kafka_settings, NO_POLL)):
        await wait_until_all_sent(database)

    [row] = await rows_of(database)
    [record] = read_topic(kafka_settings.bootstrap_servers, topic)
    envelope = row["payload"]
    assert record.key == "a"
    assert record.headers == {
        "ce_specversion": "1.0",
        "ce_id": envelope["event_id"],
        "ce_type": "Genesis.Session.Created",
        "ce_source": "/api-gateway",
        "ce_time": envelope["timestamp"],
        "ce_subject": "a",
        "ce_partitionkey": "a",
        "ce_correlationid": envelope["correlation_id"],
        "content-type": "application/json",
    }


@pytest.mark.guarantee("G30")
async def test_official_parser_and_consumers_read_structured_messages(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    structured = RelaySettings(poll_interval=3_600, cloudevents="structured")
    await put_events(database, topic, ["a"])
    async with running(Relay(database, kafka_settings, structured)):
        await wait_until_all_sent(database)

    [row] = await rows_of(database)
    message = read_message(kafka_settings, topic)
    headers = dict(message.headers())
    assert headers == {"content-type": b"application/cloudevents+json; charset=UTF-8"}
    event = from_kafka_event(KafkaMessage(headers, message.key(), message.value()))
    assert (event.get_id(), event.get_subject()) == (row["payload"]["event_id"], "a")
    assert event.get_data() == row["payload"]
    assert read_event(message, reader="suite") == EventEnvelope.model_validate(row["payload"])

    heard: asyncio.Queue[EventEnvelope] = asyncio.Queue()

    @subscribe(event.get_type(), group=topic)
    async def hear(envelope: EventEnvelope, unit: EventTransaction) -> None:
        heard.put_nowait(envelope)

    consumer = Consumer(database, kafka_settings, [hear], topics=[topic])
    consuming = asyncio.create_task(consumer.run())
    async with asyncio.timeout(WAIT_S):
        assert str((await heard.get()).event_id) == event.get_id()
    consumer.stop()
    await consuming


@pytest.mark.parametrize("compression", get_args(Compression))
async def test_messages_of_every_compression_have_the_same_events(
    database: Database, kafka_server: LocalKafka, make_topic: Callable[..., str], compression: Compression
) -> None:
    topic, kafka_settings = (
        make_topic(partitions=1),
        KafkaSettings(host=kafka_server.host, port=kafka_server.port),
    )
    await put_events(database, topic, ["a", "b"], count=50, size=600)
    settings = RelaySettings(poll_interval=3_600, compression=compression)
    async with running(Relay(database, kafka_settings, settings)):
        await wait_until_all_sent(database)

    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert first_appearances(records) == {"a": list(range(1, 51)), "b": list(range(1, 51))}
    stored = sum(file.stat().st_size for file in kafka_server.data_dir.rglob(f"{topic}-0/*.log"))
    assert (stored > 60_000) == (compression == "none"), "600 times the same letter, 100 times"


@pytest.mark.guarantee("G28")
async def test_notification_wakes_an_idle_relay(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    signals = SignalRecorder()
    async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
        await signals.wait_for(RelaySignal.LANES_CHANGED)
        await signals.wait_for_next(RelaySignal.IDLE)
        await put_events(database, topic, ["a"])
        await notify(database)
        await signals.wait_for(RelaySignal.BATCH_MARKED)


@pytest.mark.guarantee("G28")
async def test_polling_alone_publishes_all_rows(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    signals = SignalRecorder()
    relay = Relay(database, kafka_settings, RelaySettings(poll_interval=0.2), on_signal=signals)
    async with running(relay):
        await signals.wait_for(RelaySignal.LANES_CHANGED)
        await signals.wait_for_next(RelaySignal.IDLE)
        await put_events(database, topic, ["a"])
        await signals.wait_for(RelaySignal.BATCH_MARKED)


@pytest.mark.guarantee("G22")
async def test_row_that_commits_late_is_published(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    signals = SignalRecorder()
    async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
        async with database.sessions() as session:
            late = (await (await session.connection()).get_raw_connection()).driver_connection
            assert late is not None
            transaction = late.transaction()
            await transaction.start()
            await put_events(late, topic, ["late"])
            await put_events(database, topic, ["early"])
            await notify(database)
            await signals.wait_for(RelaySignal.BATCH_MARKED)
            await transaction.commit()
        await notify(database)
        await wait_until_all_sent(database)

    first, second = await rows_of(database)
    assert (first["key"], second["key"]) == ("late", "early"), "the late row must have the smaller seq"
    assert len(read_topic(kafka_settings.bootstrap_servers, topic)) == 2


@pytest.mark.guarantee("G25")
@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
async def test_outage_counts_as_attempt_only_for_rows_in_flight(
    database: Database, delivery: Literal["exactly-once", "at-least-once"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kafka, "_CONNECT_S", 0.2)
    await put_events(database, "domain-events", ["a", "b"], count=3)
    unreachable = KafkaSettings(host="127.0.0.1", port=free_port())
    relay = Relay(database, unreachable, RelaySettings(poll_interval=0.1, delivery=delivery))
    async with running(relay):
        async with asyncio.timeout(WAIT_S):
            while relay._session._publish_loop.breaker._failures < 7:  # noqa: ASYNC110 - no signal reports it
                await asyncio.sleep(0.05)
        look = relay.statistics()
    assert look.lanes == tuple(range(8))
    assert (look.retried_total, look.failed_total) == (0, 0)
    assert {(row["status"], row["attempts"]) for row in await rows_of(database)} == {("PENDING", 0)}


async def test_backlog_is_published_in_order_and_each_event_once(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    keys = [f"key-{number}" for number in range(20)]
    await put_events(database, topic, keys, count=150)
    async with running(Relay(database, kafka_settings, RelaySettings(batch_size=10, poll_interval=3_600))):
        await wait_until_all_sent(database)

    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert len(records) == 3_000
    assert first_appearances(records) == {key: list(range(1, 151)) for key in keys}


async def test_statistics_count_published_rows_and_their_delay(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, topic, ["a", "b", "c"], count=5)
    relay = Relay(database, kafka_settings, NO_POLL, name="r1")
    async with running(relay):
        await wait_until_all_sent(database)
        await asyncio.sleep(0)
        assert repr(relay) == "<Relay 'r1' [lanes 0,1,2,3,4,5,6,7 | 0 in flight | link up]>"

    look = relay.statistics()
    assert look.published_total == sum(look.delay_counts) == 15
    assert look.delay_sum_s > 0
    assert (look.retried_total, look.failed_total, look.fenced_total, look.in_flight) == (0, 0, 0, 0)
    assert look.lanes == ()


async def test_rows_of_several_topics_keep_their_keys_order(
    database: Database, kafka_settings: KafkaSettings, make_topic: Callable[..., str]
) -> None:
    one, other = make_topic(), make_topic()
    for version in range(1, 21):
        await put_events(database, one if version % 2 else other, ["a"], first=version)
    async with running(Relay(database, kafka_settings, NO_POLL)):
        await wait_until_all_sent(database)

    odd, even = (read_topic(kafka_settings.bootstrap_servers, topic) for topic in (one, other))
    assert first_appearances(odd) == {"a": list(range(1, 21, 2))}
    assert first_appearances(even) == {"a": list(range(2, 21, 2))}
