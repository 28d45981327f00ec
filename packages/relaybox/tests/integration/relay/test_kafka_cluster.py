"""A relay on three brokers: what it creates is replicated, and it publishes while one of them is away."""

import asyncio
from uuid import uuid4

import pytest
from relaybox.db import Database
from relaybox.local import LocalKafkaCluster
from relaybox.outbox import OutboxSettings
from relaybox.relay import Relay, TopicsFirst
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.clusters import created_as, in_sync, settings_of
from tests.fixtures.relays import all_sent, first_appearances, notify, put_events, read_topic, running


@pytest.fixture
def kafka(kafka_cluster: LocalKafkaCluster) -> KafkaSettings:
    """How a client reaches the three brokers."""
    return settings_of(kafka_cluster)


@pytest.fixture
async def markers(database: Database) -> str:
    """The name of the topic of this database's markers."""
    async with database.connection() as connection:
        [origin] = await connection.fetch(
            "UPDATE relay_origin SET id = coalesce(id, gen_random_uuid()) RETURNING id"
        )
    return f"relaybox-markers-{origin['id'].hex}"


def relay_of(database: Database, kafka: KafkaSettings, topic: str, **settings: object) -> TopicsFirst:
    chosen = RelaySettings.model_validate({"poll_interval": 3_600, "topic_partitions": 3, **settings})
    return TopicsFirst(Relay(database, kafka, chosen), kafka, chosen, OutboxSettings(topics=topic))


async def publish(database: Database, topic: str, *, first: int) -> None:
    await put_events(database, topic, map(str, range(20)), first=first, count=2)
    await notify(database)
    await all_sent(database)


async def test_topics_and_markers_get_three_replicas_and_min_isr_two(
    database: Database, kafka: KafkaSettings, markers: str
) -> None:
    topic = f"events-{uuid4().hex}"
    async with running(relay_of(database, kafka, topic)):
        await publish(database, topic, first=1)
    assert {name: created_as(kafka, name) for name in (topic, markers)} == {topic: (3, 2), markers: (3, 2)}


async def test_relay_publishes_on_after_one_of_three_brokers_dies(
    database: Database, kafka: KafkaSettings, kafka_cluster: LocalKafkaCluster
) -> None:
    topic = f"events-{uuid4().hex}"
    async with running(relay_of(database, kafka, topic)):
        await publish(database, topic, first=1)
        kafka_cluster.brokers[0].kill()
        await publish(database, topic, first=3)
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, topic)
    assert first_appearances(records) == {str(key): [1, 2, 3, 4] for key in range(20)}
    assert len(records) == 80


async def test_relay_that_starts_without_a_broker_creates_replicas_on_it(
    database: Database, kafka: KafkaSettings, kafka_cluster: LocalKafkaCluster, markers: str
) -> None:
    """The topics of the transactions tell that there is a third broker."""
    topic = f"events-{uuid4().hex}"
    before = f"events-{uuid4().hex}"
    async with running(relay_of(database, kafka, before)):
        await publish(database, before, first=1)
    kafka_cluster.brokers[2].kill()
    async with running(relay_of(database, kafka, f"{before},{topic}")):
        await publish(database, topic, first=1)
    assert created_as(kafka, topic) == (3, 2)
    await kafka_cluster.start()
    for name in (topic, markers):
        await in_sync(kafka, name, 3)
