"""A local cluster accepts writes without one of its brokers, which then rejoins."""

import uuid

from relaybox.local import LocalKafkaCluster

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.clusters import (
    admin_client,
    create_topic,
    settings_of,
    wait_for_replicas,
    write_to_each_partition,
)


async def test_cluster_accepts_writes_without_one_broker_which_rejoins(
    kafka_cluster: LocalKafkaCluster,
) -> None:
    settings, topic = settings_of(kafka_cluster), f"kept-{uuid.uuid4().hex}"
    create_topic(settings, topic, replicas=3, min_isr=2)
    write_to_each_partition(settings, topic, "with three")
    kafka_cluster.brokers[0].kill()
    write_to_each_partition(settings, topic, "with two")
    await wait_for_replicas(settings, topic, 2)

    await kafka_cluster.start()
    await wait_for_replicas(settings, topic, 3)
    with admin_client(settings) as admin:
        assert len(admin.list_topics(timeout=WAIT_S).brokers) == 3


async def test_paused_broker_leaves_the_isr_and_returns(kafka_cluster: LocalKafkaCluster) -> None:
    settings, topic = settings_of(kafka_cluster), f"kept-{uuid.uuid4().hex}"
    create_topic(settings, topic, replicas=3, min_isr=2)
    kafka_cluster.brokers[1].pause()
    try:
        write_to_each_partition(settings, topic, "with two")
        await wait_for_replicas(settings, topic, 2)
    finally:
        kafka_cluster.brokers[1].resume()
    await wait_for_replicas(settings, topic, 3)


async def test_stopped_cluster_starts_again_with_its_topics(kafka_cluster: LocalKafkaCluster) -> None:
    settings, topic = settings_of(kafka_cluster), f"kept-{uuid.uuid4().hex}"
    create_topic(settings, topic, replicas=3, min_isr=2)
    await kafka_cluster.stop()
    assert not any(broker.is_started for broker in kafka_cluster.brokers)

    await kafka_cluster.start()
    with admin_client(settings) as admin:
        assert topic in admin.list_topics(timeout=WAIT_S).topics
    write_to_each_partition(settings, topic, "after the start")
