"""Lanes change their owner while a partition accepts no writes: other keys flow, exactly once (G36)."""

import asyncio
import signal
from uuid import uuid4

import pytest
from relaybox.db import Database
from relaybox.local import LocalKafkaCluster
from relaybox.relay import Relay
from relaybox.relay._kafka import client_settings
from relaybox.relay._transaction import Markers
from relaybox.settings import PostgresSettings, RelaySettings

from tests.fixtures.clusters import create_topic, settings_of, wait_for_replicas
from tests.fixtures.relays import (
    RelayProcess,
    first_appearances,
    notify,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.waiting import eventually

#: Fewer than the rows of the first batches, which a relay sends before it knows the state of partitions.
BLOCKED_KEYS = [f"blocked-{number}" for number in range(12)]
OTHER_KEYS = [f"other-{number}" for number in range(30)]


class Outage:
    """Two of three brokers: a topic on one of these and the third accepts no writes, another topic does."""

    def __init__(self, database: Database, cluster: LocalKafkaCluster) -> None:
        self.database = database
        self.kafka = settings_of(cluster)
        self.blocked, self.other = (f"{name}-{uuid4().hex}" for name in ("blocked", "other"))
        self._cluster = cluster
        self._versions = 0

    def relay(self) -> Relay:
        return Relay(self.database, self.kafka, RelaySettings(poll_interval=3_600))

    async def begin(self) -> None:
        """Stop a broker; write the first event of each blocked key, and the second of each other key.

        The next relay does not know the state of the blocked topic, so that it begins transactions.
        """
        create_topic(self.kafka, self.blocked, replicas=[1, 2], min_isr=2)
        create_topic(self.kafka, self.other, replicas=3, min_isr=2)
        async with running(self.relay()):
            await self.put_others()
            await wait_until_all_sent(self.database)
        self._cluster.brokers[0].kill()
        await wait_for_replicas(self.kafka, self.blocked, 1)
        await wait_for_replicas(self.kafka, self.other, 2)
        await put_events(self.database, self.blocked, BLOCKED_KEYS)
        await self.put_others()

    async def put_others(self) -> None:
        """Write the next event of each key of the other topic."""
        self._versions += 1
        await put_events(self.database, self.other, OTHER_KEYS, first=self._versions)
        await notify(self.database)

    async def transactions_open(self) -> None:
        """Wait until each lane with a blocked key has a transaction that cannot end."""
        query = """
            SELECT DISTINCT l.lane FROM event_outbox AS o
            JOIN relay_lanes AS l ON o.key_hash BETWEEN l.hash_min AND l.hash_max WHERE o.topic = $1
        """
        async with self.database.connection() as connection:
            lanes = {row["lane"] for row in await connection.fetch(query, self.blocked)}
            [origin] = await connection.fetch("SELECT id FROM relay_origin")
        markers = Markers(client_settings(self.kafka), origin["id"])

        async def reached() -> bool:
            claimed = await lanes_with_claims(self.database)
            return lanes <= claimed & await asyncio.to_thread(markers.lanes_with_open_transaction, range(8))

        await eventually("the lanes of the blocked keys have open transactions", reached)

    async def only_blocked_pending(self) -> None:
        """Wait until exactly the rows of the blocked topic are PENDING."""

        async def reached() -> bool:
            return {row["topic"] for row in await rows_of(self.database, "status = 'PENDING'")} == {
                self.blocked
            }

        await eventually("only the rows of the blocked topic wait", reached)

    async def end(self) -> None:
        """Start the broker, and wait until each event is on its topic once and in order."""
        await self._cluster.start()
        await wait_until_all_sent(self.database)
        for topic, keys, versions in (
            (self.blocked, BLOCKED_KEYS, 1),
            (self.other, OTHER_KEYS, self._versions),
        ):
            records = await asyncio.to_thread(read_topic, self.kafka.bootstrap_servers, topic)
            assert first_appearances(records) == {key: list(range(1, versions + 1)) for key in keys}
            assert len(records) == len(keys) * versions


async def lanes_with_claims(database: Database) -> set[int]:
    """Return the lanes with a claimed batch."""
    async with database.connection() as connection:
        return {row["lane"] for row in await connection.fetch("SELECT lane FROM relay_batches")}


@pytest.fixture
def outage(database: Database, kafka_cluster: LocalKafkaCluster) -> Outage:
    return Outage(database, kafka_cluster)


@pytest.mark.guarantee("G36")
async def test_other_keys_flow_after_a_relay_lost_its_lease(outage: Outage) -> None:
    await outage.begin()
    async with running(outage.relay()):
        await outage.transactions_open()
        async with outage.database.connection() as connection:
            await connection.fetch("UPDATE relay_lanes SET lease_until = clock_timestamp() - interval '1 s'")
        await outage.only_blocked_pending()
        await outage.put_others()
        await outage.only_blocked_pending()
        await outage.end()


@pytest.mark.guarantee("G36")
@pytest.mark.guarantee("G31")
@pytest.mark.parametrize("fate", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
async def test_other_keys_flow_after_a_relay_was_stopped(
    outage: Outage, postgres_settings: PostgresSettings, fate: signal.Signals
) -> None:
    await outage.begin()
    former = RelayProcess(postgres_settings, outage.kafka, relay_poll_interval="3600")
    try:
        await former.start()
        await outage.transactions_open()
        former.send(fate)
        async with running(outage.relay()):
            await outage.only_blocked_pending()
            if fate is signal.SIGSTOP:
                former.send(signal.SIGCONT)
            await outage.put_others()
            await outage.only_blocked_pending()
            await outage.end()
    finally:
        await former.kill()
