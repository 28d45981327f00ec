"""A relay on three brokers creates replicated topics and publishes without one broker."""

import asyncio
import json
from collections.abc import Callable
from uuid import uuid4

import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.local import LocalKafkaCluster
from relaybox.outbox import OutboxSettings
from relaybox.relay import Relay, RelaySignal, TopicsFirst
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings
from structlog.testing import capture_logs
from typer.testing import CliRunner, Result

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.clusters import create_topic, replication_of, settings_of, wait_for_replicas
from tests.fixtures.processes import command_environment
from tests.fixtures.relays import (
    first_appearances,
    notify,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.signal_recorder import SignalRecorder

Check = Callable[..., Result]


@pytest.fixture
def kafka(kafka_cluster: LocalKafkaCluster) -> KafkaSettings:
    """Return the settings of clients of the three brokers."""
    return settings_of(kafka_cluster)


@pytest.fixture
async def markers(database: Database) -> str:
    """Return the name of the topic of this database's markers."""
    async with database.connection() as connection:
        [origin] = await connection.fetch(
            "UPDATE relay_origin SET id = coalesce(id, gen_random_uuid()) RETURNING id"
        )
    return f"relaybox-markers-{origin['id'].hex}"


@pytest.fixture
def check(postgres_settings: PostgresSettings, kafka: KafkaSettings) -> Check:
    def run_check(topic: str, *words: str) -> Result:
        variables = command_environment(postgres_settings, kafka) | {"OUTBOX_TOPICS": topic}
        return CliRunner().invoke(app, ["topics", "check", *words], env=variables)

    return run_check


async def faults(check: Check, topic: str) -> dict[str, list[str]]:
    """Return the codes of what `topics check` reports of each topic."""
    checked = await asyncio.to_thread(check, topic, "--json")
    found = json.loads(checked.stdout)
    assert checked.exit_code == (0 if found["ok"] else 1)
    return {each["name"]: [fault["code"] for fault in each["faults"]] for each in found["topics"]}


def relay_of(database: Database, kafka: KafkaSettings, topic: str, **settings: object) -> TopicsFirst:
    chosen = RelaySettings.model_validate({"poll_interval": 3_600, "topic_partitions": 3, **settings})
    return TopicsFirst(Relay(database, kafka, chosen), kafka, chosen, OutboxSettings(topics=topic))


async def publish(database: Database, topic: str, *, first: int) -> None:
    await put_events(database, topic, map(str, range(20)), first=first, count=2)
    await notify(database)
    await wait_until_all_sent(database)


@pytest.mark.guarantee("G37")
async def test_topics_and_markers_get_three_replicas_and_min_isr_two(
    database: Database, kafka: KafkaSettings, markers: str, check: Check
) -> None:
    topic = f"events-{uuid4().hex}"
    async with running(relay_of(database, kafka, topic)):
        await publish(database, topic, first=1)
    assert {name: replication_of(kafka, name) for name in (topic, markers)} == {
        topic: (3, 2),
        markers: (3, 2),
    }
    async with asyncio.timeout(WAIT_S):
        while (codes := await faults(check, topic))[topic]:  # replicas of a new topic catch up  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    assert {name: codes[name] for name in (markers, "__transaction_state")} == {
        markers: [],
        "__transaction_state": [],
    }


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


@pytest.mark.guarantee("G25")
async def test_frozen_broker_of_three_does_not_count_as_a_link_failure(
    database: Database, kafka: KafkaSettings, kafka_cluster: LocalKafkaCluster
) -> None:
    """The controller gives the frozen broker's partitions to others while the records are in flight."""
    topic = f"events-{uuid4().hex}"
    create_topic(kafka, topic, replicas=3, min_isr=2, partitions=6)
    settings = RelaySettings(poll_interval=3_600, delivery="at-least-once")
    signals = SignalRecorder()
    async with running(Relay(database, kafka, settings, on_signal=signals)):
        await publish(database, topic, first=1)
        kafka_cluster.brokers[0].pause()
        try:
            await publish(database, topic, first=3)
        finally:
            kafka_cluster.brokers[0].resume()
    assert signals.counts[RelaySignal.LINK_DOWN] == 0
    assert {row["attempts"] for row in await rows_of(database)} == {0}
    records = await asyncio.to_thread(read_topic, kafka.bootstrap_servers, topic)
    assert first_appearances(records) == {str(key): [1, 2, 3, 4] for key in range(20)}
    await wait_for_replicas(kafka, topic, 3)


@pytest.mark.guarantee("G37")
async def test_relay_that_starts_without_a_broker_creates_replicas_on_it(
    database: Database, kafka: KafkaSettings, kafka_cluster: LocalKafkaCluster, markers: str
) -> None:
    """The topics of transactions show that there is a third broker."""
    topic = f"events-{uuid4().hex}"
    before = f"events-{uuid4().hex}"
    async with running(relay_of(database, kafka, before)):
        await publish(database, before, first=1)
    kafka_cluster.brokers[2].kill()
    async with running(relay_of(database, kafka, f"{before},{topic}")):
        await publish(database, topic, first=1)
    assert replication_of(kafka, topic) == (3, 2)
    await kafka_cluster.start()
    for name in (topic, markers):
        await wait_for_replicas(kafka, name, 3)


async def test_check_and_relay_name_a_topic_with_one_replica_on_three_brokers(
    database: Database, kafka: KafkaSettings, check: Check
) -> None:
    topic = f"events-{uuid4().hex}"
    create_topic(kafka, topic, replicas=1, min_isr=1)
    assert (await faults(check, topic))[topic] == ["TOPIC_FEW_REPLICAS"]
    with capture_logs() as logs:
        async with running(relay_of(database, kafka, topic)):
            await publish(database, topic, first=1)
    warnings = [(line["topic"], line["brokers"]) for line in logs if "one replica" in line["event"]]
    assert warnings == [(topic, 3)]


async def test_check_names_replicas_on_a_broker_that_is_down_and_the_broker(
    kafka: KafkaSettings, kafka_cluster: LocalKafkaCluster, check: Check
) -> None:
    topic = f"events-{uuid4().hex}"
    create_topic(kafka, topic, replicas=3, min_isr=2)
    kafka_cluster.brokers[1].kill()
    await wait_for_replicas(kafka, topic, 2)
    checked = await asyncio.to_thread(check, topic)
    assert checked.exit_code == 1
    assert "down: 2" in checked.stdout
    assert f"{topic}: 2 partitions (0, 1) with a replica that is not in sync" in checked.stdout
    assert "TOPIC_UNDER_REPLICATED; start broker 2;" in checked.stdout


@pytest.mark.guarantee("G37")
async def test_create_refuses_more_replicas_than_there_are_brokers(
    postgres_settings: PostgresSettings, kafka: KafkaSettings
) -> None:
    variables = command_environment(postgres_settings, kafka) | {
        "OUTBOX_TOPICS": f"events-{uuid4().hex}",
        "RELAY_TOPIC_REPLICATION": "4",
    }
    refused = await asyncio.to_thread(CliRunner().invoke, app, ["topics", "create"], env=variables)
    assert refused.exit_code == 1
    assert "RELAY_TOPIC_REPLICATION=4, but only the brokers 1, 2, 3 are up" in refused.stderr
