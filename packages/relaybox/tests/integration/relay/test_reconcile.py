"""After a failover: reading from Kafka what was published before it (G35)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from relaybox.db import Database, DatabaseRefused
from relaybox.relay._errors import PublishedUnknown
from relaybox.relay._lanes import Lanes
from relaybox.relay._postgres import connected
from relaybox.relay._reconcile import PublishedEvents, Reconciler
from relaybox.settings import KafkaSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.relays import put_events, rows_of

Read = Callable[[str], PublishedEvents]


@pytest.fixture
async def read(kafka_settings: KafkaSettings) -> AsyncIterator[Read]:
    """Return a function that reads a topic from an hour ago on; its reader is closed after the test."""
    made: list[PublishedEvents] = []

    def begin(topic: str) -> PublishedEvents:
        made.append(PublishedEvents(kafka_settings, {topic: datetime.now(UTC) - timedelta(hours=1)}))
        return made[-1]

    yield begin
    for events in made:
        await asyncio.to_thread(events.close)


def transactional(settings: KafkaSettings) -> Producer:
    """Return a transactional producer that is ready to begin a transaction."""
    producer = Producer({**settings.client_config(), "log_level": 0, "transactional.id": f"test-{uuid4()}"})
    producer.init_transactions(WAIT_S)
    return producer


def publish(settings: KafkaSettings, topic: str, event_id: str, at: datetime | None = None) -> None:
    """Write a record of an event, with the time *at*."""
    producer = Producer({**settings.client_config(), "log_level": 0})
    timestamp_ms = int((at or datetime.now(UTC)).timestamp() * 1_000)
    producer.produce(topic, b"{}", key=b"key", headers=[("ce_id", event_id.encode())], timestamp=timestamp_ms)
    assert producer.flush(WAIT_S) == 0


async def test_reading_beyond_an_open_transaction_continues_in_steps(
    kafka_settings: KafkaSettings, topic: str, read: Read
) -> None:
    producer = transactional(kafka_settings)
    producer.begin_transaction()
    producer.produce(topic, b"{}", key=b"a", headers=[("ce_id", b"held back")])
    assert producer.flush(WAIT_S) == 0
    events = read(topic)

    assert await asyncio.to_thread(events.next_ids) == []

    producer.commit_transaction(WAIT_S)
    found: list[tuple[str, str]] = []
    while (ids := await asyncio.to_thread(events.next_ids)) is not None:
        found += ids
    assert found == [(topic, "held back")]


async def test_reconciler_names_the_right_to_create_temporary_tables(
    database: Database, kafka_settings: KafkaSettings, topic: str, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(f'REVOKE TEMPORARY ON DATABASE "{database.settings.db}" FROM PUBLIC')
    lanes = Lanes(lease_s=600)
    async with connected(database) as connection:
        await lanes.renew(connection)
        await put_events(connection, topic, ["key"])
        with ThreadPoolExecutor(1) as threads, pytest.raises(DatabaseRefused) as refused:
            await Reconciler(kafka_settings, uuid4()).settle(connection, lanes.usable(), threads)
    assert "permission denied to create temporary tables" in str(refused.value)
    assert "a relay needs TEMPORARY on the database" in str(refused.value)


async def test_compacted_topic_cannot_show_what_was_published(
    make_topic: Callable[..., str], read: Read
) -> None:
    events = read(make_topic(cleanup_policy="compact"))
    with pytest.raises(PublishedUnknown, match="compacted"):
        await asyncio.to_thread(events.next_ids)


@pytest.mark.guarantee("G35")
async def test_topic_of_short_retention_cannot_tell_what_was_published(
    make_topic: Callable[..., str], read: Read
) -> None:
    topic = make_topic(retention_ms="60000")
    with pytest.raises(PublishedUnknown, match=f"retention may have removed records of topic {topic}"):
        await asyncio.to_thread(read(topic).next_ids)


@pytest.mark.guarantee("G35")
async def test_topic_cut_by_size_cannot_tell_what_was_published(
    kafka_settings: KafkaSettings, make_topic: Callable[..., str], read: Read
) -> None:
    topic = make_topic(partitions=1, retention_bytes="1000000000")
    publish(kafka_settings, topic, "removed")
    with AdminClient(kafka_settings.client_config()) as admin:
        for removed in admin.delete_records([TopicPartition(topic, 0, 1)]).values():
            await asyncio.to_thread(removed.result, WAIT_S)
    with pytest.raises(PublishedUnknown, match=f"retention may have removed records of topic {topic}"):
        await asyncio.to_thread(read(topic).next_ids)


@pytest.mark.guarantee("G35")
async def test_event_in_two_topics_is_found_in_one(
    database: Database, kafka_settings: KafkaSettings, make_topic: Callable[..., str]
) -> None:
    published, unpublished = make_topic(), make_topic()
    lanes = Lanes(lease_s=600)
    async with connected(database) as connection:
        await lanes.renew(connection)
        await put_events(connection, published, ["key"])
        await connection.fetch(
            "INSERT INTO event_outbox (topic, key, payload) SELECT $1, key, payload FROM event_outbox",
            unpublished,
        )
        [event_id] = {row["payload"]["event_id"] for row in await rows_of(database)}
        publish(kafka_settings, published, event_id)
        with ThreadPoolExecutor(1) as threads:
            await Reconciler(kafka_settings, uuid4()).settle(connection, lanes.usable(), threads)
    statuses = {row["topic"]: row["status"] for row in await rows_of(database)}
    assert statuses == {published: "SENT", unpublished: "PENDING"}


@pytest.mark.guarantee("G35")
async def test_record_is_found_though_the_relays_clock_is_minutes_late(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    lanes = Lanes(lease_s=600)
    async with connected(database) as connection:
        await lanes.renew(connection)
        await put_events(connection, topic, ["key"])
        [row] = await rows_of(database)
        publish(kafka_settings, topic, row["payload"]["event_id"], row["created_at"] - timedelta(minutes=4))
        with ThreadPoolExecutor(1) as threads:
            await Reconciler(kafka_settings, uuid4()).settle(connection, lanes.usable(), threads)
    assert [row["status"] for row in await rows_of(database)] == ["SENT"]
