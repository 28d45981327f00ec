"""A partition without writes delays only its own keys (G36)."""

import asyncio
from collections.abc import Collection, Sequence
from uuid import uuid4

import pytest
from relaybox.db import Database
from relaybox.local import LocalKafkaCluster
from relaybox.operations import relay_status
from relaybox.relay import Relay, Statistics, check_relay, markers_topic
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.telemetry import HealthState
from relaybox.verify import partition_of

from tests.fixtures.clusters import create_topic, replica_brokers, settings_of
from tests.fixtures.relays import (
    first_appearances,
    notify,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.waiting import eventually

PARTITIONS = 6
KEYS = [f"key-{number}" for number in range(40)]


class Case:
    """Create a topic with some partitions on one broker only."""

    def __init__(self, database: Database, cluster: LocalKafkaCluster, delivery: str) -> None:
        self.database = database
        self.cluster = cluster
        self.kafka: KafkaSettings = settings_of(cluster)
        self.topic = f"events-{uuid4().hex}"
        self.settings = RelaySettings.model_validate({"poll_interval": 3_600, "delivery": delivery})
        self._versions = 0

    def relay(self) -> Relay:
        return Relay(self.database, self.kafka, self.settings)

    async def put(self) -> None:
        """Write two more events of each key."""
        await put_events(self.database, self.topic, KEYS, first=self._versions + 1, count=2)
        self._versions += 2
        await notify(self.database)

    async def only_pending(self, keys: Collection[str]) -> None:
        """Wait until exactly the rows of *keys* are PENDING."""

        async def reached() -> bool:
            return {row["key"] for row in await rows_of(self.database, "status = 'PENDING'")} == set(keys)

        await eventually(f"only {len(keys)} keys wait", reached)

    async def status_names(self, reasons: Sequence[str]) -> None:
        """Wait until ``relaybox relay status`` shows *reasons*: the relay reports them with its heartbeat."""

        async def shown() -> bool:
            async with self.database.connection() as connection:
                [relay] = (await relay_status(connection)).relays
            return list(relay.troubles) == list(reasons)

        await eventually("the status names the partitions", shown)

    async def check_topic(self) -> None:
        """Assert that each event is on the topic once and in order."""
        records = await asyncio.to_thread(read_topic, self.kafka.bootstrap_servers, self.topic)
        expected = list(range(1, self._versions + 1))
        assert first_appearances(records) == dict.fromkeys(KEYS, expected)
        assert len(records) == len(KEYS) * self._versions or self.settings.delivery == "at-least-once"


async def unavailable(relay: Relay, partitions: Collection[int]) -> Statistics:
    """Wait until *relay* reports exactly *partitions*; return its statistics."""

    async def named() -> bool:
        reasons = relay.statistics().partitions_unavailable
        return {int(reason.split()[1]) for reason in reasons} == set(partitions)

    await eventually(f"the partitions {partitions} are named", named)
    return relay.statistics()


def keys_in(partitions: Collection[int]) -> set[str]:
    return {key for key in KEYS if partition_of(key, PARTITIONS) in partitions}


@pytest.mark.guarantee("G36")
@pytest.mark.parametrize(
    ("delivery", "replicas"),
    [("exactly-once", 1), ("exactly-once", 2), ("at-least-once", 1)],
    ids=["no leader", "too few in sync", "no leader, at least once"],
)
async def test_keys_of_other_partitions_flow_while_one_takes_no_writes(
    database: Database, kafka_cluster: LocalKafkaCluster, delivery: str, replicas: int
) -> None:
    case = Case(database, kafka_cluster, delivery)
    create_topic(case.kafka, case.topic, replicas=replicas, min_isr=replicas, partitions=PARTITIONS)
    broker = case.cluster.brokers[0]
    lost = [number for number, ids in replica_brokers(case.kafka, case.topic).items() if 1 in ids]
    assert 0 < len(lost) < PARTITIONS
    relay = case.relay()
    async with running(relay):
        await case.put()
        await wait_until_all_sent(case.database)
        broker.kill()
        for _ in range(3):
            await case.put()
            await case.only_pending(keys_in(lost))
        figures = await unavailable(relay, lost)
        assert case.topic in figures.partitions_unavailable[0]
        assert (await check_relay(relay.statistics)()).state is HealthState.DEGRADED
        await case.status_names(figures.partitions_unavailable)
    again = case.relay()
    async with running(again):  # a relay that starts during the outage
        await case.put()
        await case.only_pending(keys_in(lost))
        await case.cluster.start()
        await wait_until_all_sent(case.database)
        await unavailable(again, [])
        await case.put()
        await wait_until_all_sent(case.database)
    await case.check_topic()


@pytest.mark.guarantee("G36")
async def test_lanes_of_other_markers_flow_while_one_marker_takes_no_writes(
    database: Database, kafka_cluster: LocalKafkaCluster
) -> None:
    """Markers have one partition per lane."""
    case = Case(database, kafka_cluster, "exactly-once")
    async with database.connection() as connection:
        [origin] = await connection.fetch(
            "UPDATE relay_origin SET id = coalesce(id, gen_random_uuid()) RETURNING id"
        )
    markers = markers_topic(origin["id"])
    create_topic(case.kafka, markers, replicas=1, min_isr=1, partitions=8)
    create_topic(case.kafka, case.topic, replicas=3, min_isr=2, partitions=PARTITIONS)
    lost = [number for number, ids in replica_brokers(case.kafka, markers).items() if 1 in ids]
    assert 0 < len(lost) < 8
    async with running(case.relay()):
        await case.put()
        await wait_until_all_sent(database)
    keys = await keys_of_lanes(database, lost)
    kafka_cluster.brokers[0].kill()
    relay = case.relay()
    async with running(relay):
        await case.put()
        await case.only_pending(keys)
        await unavailable(relay, lost)
        await kafka_cluster.start()
        await wait_until_all_sent(database)
    await case.check_topic()


async def keys_of_lanes(database: Database, lanes: Collection[int]) -> set[str]:
    """Return the keys whose rows belong to *lanes*."""
    query = """
        SELECT DISTINCT o.key FROM event_outbox AS o
        JOIN relay_lanes AS l ON o.key_hash BETWEEN l.hash_min AND l.hash_max WHERE l.lane = ANY ($1::int[])
    """
    async with database.connection() as connection:
        return {row["key"] for row in await connection.fetch(query, list(lanes))}
