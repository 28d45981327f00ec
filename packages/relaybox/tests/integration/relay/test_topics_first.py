"""The start of a relay while brokers are down or topics are missing."""

import asyncio
from collections.abc import Callable, Iterator
from time import monotonic
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient
from relaybox.db import Database
from relaybox.kafka import wait_for_leaders
from relaybox.local import free_port
from relaybox.outbox import OutboxSettings
from relaybox.relay import Relay, RelaySignal, TopicsFirst
from relaybox.relay._kafka import BrokerClient, client_settings
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.topics import TopicsNotReady, ensure_topics
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.clusters import admin_client
from tests.fixtures.relays import put_events, rows_of, running, wait_until_all_sent
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.topic_records import add_partitions


@pytest.fixture
def absent(kafka_settings: KafkaSettings) -> Iterator[str]:
    """Return the name of a topic that does not exist yet."""
    name = f"absent-{uuid4().hex}"
    yield name
    with AdminClient({**kafka_settings.client_config(), "log_level": 0}) as client:
        client.delete_topics([name])
        client.poll(0)


def a_relay(
    database: Database,
    kafka: KafkaSettings,
    topics: str,
    *,
    signals: SignalRecorder | None = None,
    **settings: object,
) -> TopicsFirst:
    chosen = RelaySettings.model_validate({"poll_interval": 3_600, **settings})
    relay = Relay(database, kafka, chosen, on_signal=signals or SignalRecorder())
    return TopicsFirst(relay, kafka, chosen, OutboxSettings(topics=topics))


@pytest.mark.guarantee("G34")
async def test_relay_creates_missing_topics_and_counts_no_attempts(
    database: Database, kafka_settings: KafkaSettings, topic: str, absent: str
) -> None:
    await put_events(database, absent, ["a", "b"], count=3)
    relay = a_relay(database, kafka_settings, f"{topic},{absent}", topic_partitions=3)
    async with running(relay):
        await wait_until_all_sent(database)
    assert {row["attempts"] for row in await rows_of(database)} == {0}
    with AdminClient({**kafka_settings.client_config(), "log_level": 0}) as client:
        topics = client.list_topics(timeout=WAIT_S).topics
    assert (len(topics[absent].partitions), len(topics[topic].partitions)) == (3, 4)


@pytest.mark.guarantee("G34")
async def test_newly_created_topic_is_not_reported_as_missing(
    kafka_settings: KafkaSettings, absent: str
) -> None:
    """Brokers show a topic a moment after its creation returned: of 20 topics, some would be missing."""
    link = BrokerClient(client_settings(kafka_settings))
    names = [f"{absent}-{number}" for number in range(20)]
    for name in names:
        assert await ensure_topics(kafka_settings, [name]) == [name]
        assert name in await asyncio.to_thread(link.limits, [name])
    link.close()


@pytest.mark.guarantee("G34")
async def test_missing_topic_ends_the_relay_if_it_must_not_create_topics(
    database: Database, kafka_settings: KafkaSettings, topic: str, absent: str
) -> None:
    await put_events(database, absent, ["a"])
    await put_events(database, topic, ["b"])
    relay = a_relay(database, kafka_settings, f"{topic},{absent}", create_topics=False)
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(TopicsNotReady, match=f"no topic '{absent}' .* `relaybox topics create`"):
            await relay.run()
    assert {(row["status"], row["attempts"]) for row in await rows_of(database)} == {("PENDING", 0)}


async def test_error_quotes_why_the_broker_refuses_a_topic(
    database: Database, kafka_settings: KafkaSettings, absent: str
) -> None:
    """Kafka refuses two topics whose names differ only by a dot and an underscore."""
    first, second = absent, absent.replace("-", ".") + "_x"
    await ensure_topics(kafka_settings, [first, second])
    refused = second.replace("_", ".")
    async with asyncio.timeout(WAIT_S):
        with pytest.raises(TopicsNotReady, match=f"'{refused}' cannot be created: .*; create it by hand"):
            await a_relay(database, kafka_settings, f"{first},{refused}").run()


async def test_relay_waits_for_kafka_at_its_start_unless_it_is_stopped(
    database: Database,
) -> None:
    relay = a_relay(database, KafkaSettings(host="127.0.0.1", port=free_port()), "domain-events")
    with capture_logs() as logs:
        running = asyncio.create_task(relay.run())
        async with asyncio.timeout(WAIT_S):
            while not logs:  # noqa: ASYNC110 - only the log shows it
                await asyncio.sleep(0.05)
        assert not running.done()
        relay.stop()
        async with asyncio.timeout(WAIT_S):
            await running
    assert [line["event"] for line in logs] == ["relay waits for Kafka"]


async def test_topic_with_a_lower_limit_than_the_outbox_is_warned_of(
    database: Database, kafka_settings: KafkaSettings, topic: str, make_topic: Callable[..., str]
) -> None:
    narrow = make_topic(max_message_bytes="4000")
    signals = SignalRecorder()
    relay = a_relay(database, kafka_settings, f"{topic},{narrow}", signals=signals)
    with capture_logs() as logs:
        async with running(relay):
            await signals.wait_for(RelaySignal.LANES_CHANGED)
    [warning] = [line for line in logs if "OUTBOX_MESSAGE_BYTES_MAX" in line["event"]]
    assert (warning["topic"], warning["topic_bytes_max"], warning["log_level"]) == (narrow, 4_000, "warning")


def test_client_with_old_metadata_finds_leaders_of_added_partitions(
    kafka_settings: KafkaSettings, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=2)
    with admin_client(kafka_settings) as client:
        wait_for_leaders(client, {topic: 2}, monotonic() + WAIT_S)
        add_partitions(kafka_settings, topic, 4)
        wait_for_leaders(client, {topic: 4}, monotonic() + WAIT_S)
