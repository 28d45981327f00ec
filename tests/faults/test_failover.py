"""A standby that lacked the last commits is promoted while relays run (G35)."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from relaybox.db import Database, DatabaseUnavailable
from relaybox.local import free_port
from relaybox.operations import accept_marker
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.failover import DatabasePair
from tests.fixtures.relays import (
    Record,
    notify,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.topic_config import set_topic_config
from tests.fixtures.waiting import eventually

pytestmark = pytest.mark.slow

KEYS = [f"key-{number}" for number in range(20)]
SETTINGS = RelaySettings(poll_interval=3_600, lease_s=1)


def published(kafka: KafkaSettings, topic: str) -> list[Record]:
    return read_topic(kafka.bootstrap_servers, topic)


async def publish_and_fail_over(pair: DatabasePair, kafka: KafkaSettings, topic: str) -> set[str]:
    """Publish events that the standby has, marked and unmarked, and events that it lacks.

    Returns:
        The ids of all events on the topic.
    """
    await put_events(pair.database, topic, KEYS, count=2)
    await publish(pair.database)
    await put_events(pair.database, topic, KEYS, first=3, count=3)
    await pair.pause_replication()
    await publish(pair.database)
    await put_events(pair.database, topic, KEYS, first=6, count=4)
    await publish(pair.database)
    before = {record.event_id for record in published(kafka, topic)}
    await pair.fail_over()
    await put_events(pair.database, topic, KEYS, first=6, count=2)
    return before


async def publish(database: Database) -> None:
    await notify(database)
    await wait_until_all_sent(database)


async def require_each_row_once(
    pair: DatabasePair, kafka: KafkaSettings, topic: str, before: set[str]
) -> None:
    """Assert that each row is on the topic once and in order, and each event of *before* once."""
    records, rows = published(kafka, topic), await rows_of(pair.database)
    times = Counter(record.event_id for record in records)
    assert [row["seq"] for row in rows if times[row["payload"]["event_id"]] != 1] == []
    assert len(records) == len(before) + 2 * len(KEYS)
    seqs = {row["payload"]["event_id"]: row["seq"] for row in rows}
    for key in KEYS:
        in_order = [seqs[r.event_id] for r in records if r.key == key and r.event_id in seqs]
        assert in_order == sorted(in_order)


async def lanes_with_fault(database: Database) -> list[Mapping[str, Any]]:
    async with database.connection() as connection:
        return list(await connection.fetch("SELECT lane, fault FROM relay_lanes WHERE fault IS NOT NULL"))


@pytest.mark.guarantee("G35")
async def test_log_function_on_a_standby_is_an_outage(pair: DatabasePair) -> None:
    at_standby = {"port": pair.standby.port, "target_session_attrs": "any"}
    database = Database(pair.database.settings.model_copy(update=at_standby))
    with pytest.raises(DatabaseUnavailable, match="PostgreSQL is read-only"):
        async with database.connection() as connection:
            await connection.fetch("SELECT pg_current_wal_lsn()")
    await database.close()


@pytest.mark.guarantee("G35")
@pytest.mark.parametrize("relays", [1, 2])
async def test_survivors_of_a_lossy_failover_publish_each_row_once(
    pair: DatabasePair, kafka_settings: KafkaSettings, topic: str, relays: int
) -> None:
    survivors = [Relay(pair.database, kafka_settings, SETTINGS) for _ in range(relays)]
    async with running(*survivors):
        before = await publish_and_fail_over(pair, kafka_settings, topic)
        await publish(pair.database)
    await require_each_row_once(pair, kafka_settings, topic, before)


@pytest.mark.guarantee("G35")
async def test_survivor_of_two_lossy_failovers_publishes_each_row_once(
    pair: DatabasePair, server_dir: Path, kafka_settings: KafkaSettings, topic: str
) -> None:
    async with running(Relay(pair.database, kafka_settings, SETTINGS)):
        await publish_and_fail_over(pair, kafka_settings, topic)
        await publish(pair.database)
        await pair.add_standby(server_dir / "second-standby")
        before = await publish_and_fail_over(pair, kafka_settings, topic)
        await publish(pair.database)
    await require_each_row_once(pair, kafka_settings, topic, before)


@pytest.mark.guarantee("G35")
async def test_restarted_relays_publish_each_row_once_after_a_failover(
    pair: DatabasePair, kafka_settings: KafkaSettings, topic: str
) -> None:
    async with running(Relay(pair.database, kafka_settings, SETTINGS)):
        before = await publish_and_fail_over(pair, kafka_settings, topic)
    async with running(Relay(pair.database, kafka_settings, SETTINGS)):
        await wait_until_all_sent(pair.database)
    await require_each_row_once(pair, kafka_settings, topic, before)


@pytest.mark.guarantee("G35")
async def test_lane_first_settled_while_the_standby_lagged_continues(
    pair: DatabasePair, kafka_settings: KafkaSettings, topic: str
) -> None:
    """The standby has the first timeline, without any lane compared with Kafka in it."""

    async def noted() -> bool:
        async with pair.database.connection() as connection:
            [row] = await connection.fetch("SELECT history IS NOT NULL AS noted FROM relay_origin")
        return row["noted"]

    without_kafka = KafkaSettings(host="127.0.0.1", port=free_port())
    async with running(Relay(pair.database, without_kafka, SETTINGS)):
        await eventually("a relay has noted the history", noted)
    await put_events(pair.database, topic, KEYS, count=2)
    await pair.pause_replication()
    async with running(Relay(pair.database, kafka_settings, SETTINGS)):
        await publish(pair.database)
        before = {record.event_id for record in published(kafka_settings, topic)}
        await pair.fail_over()
        await put_events(pair.database, topic, KEYS, first=3, count=2)
        await publish(pair.database)
    await require_each_row_once(pair, kafka_settings, topic, before)


@pytest.mark.guarantee("G35")
async def test_lane_stops_where_retention_has_removed_the_topic(
    pair: DatabasePair, kafka_settings: KafkaSettings, topic: str
) -> None:
    """The topic's retention is shorter than the allowed difference of clocks."""
    relay = Relay(pair.database, kafka_settings, RelaySettings(poll_interval=0.2, lease_s=1))
    set_topic_config(kafka_settings, topic, "retention.ms", "60000")

    async def stopped() -> bool:
        return relay.statistics().backlog.lanes_faulty > 0

    async with running(relay):
        before = await publish_and_fail_over(pair, kafka_settings, topic)
        await eventually("lanes have stopped", stopped)
        assert {record.event_id for record in published(kafka_settings, topic)} == before
        for lane in await lanes_with_fault(pair.database):
            marker = UUID(re.findall("marker is ([0-9a-f-]+)", lane["fault"])[0])
            async with pair.database.connection() as connection:
                await accept_marker(connection, lane["lane"], marker, by="operator", reason="tested")
        await wait_until_all_sent(pair.database)
