"""Functions that create topics, and relays, close their Kafka clients, also if the caller keeps an object."""

from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest
from relaybox.db import Database
from relaybox.relay import Relay
from relaybox.relay._errors import LinkDown  # `Markers` is not a public name
from relaybox.relay._kafka import client_settings
from relaybox.relay._transaction import Markers
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.topics import TopicsNotReady, ensure_topics, raise_message_limit

from tests.fixtures.relays import put_events, running, wait_until_all_sent


def client_threads() -> set[int]:
    """Return the ids of the threads of this process that belong to a client of librdkafka."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            if (task / "comm").read_text().startswith("rdk:"):
                found.add(int(task.name))
    return found


async def test_refused_topic_leaves_no_admin_client(kafka_settings: KafkaSettings) -> None:
    before = client_threads()
    with pytest.raises(TopicsNotReady) as refused:
        await ensure_topics(kafka_settings, ["a name with blanks"])
    assert client_threads() <= before
    assert "cannot be created" in str(refused.value)


async def test_refused_limit_leaves_no_admin_client(kafka_settings: KafkaSettings) -> None:
    before = client_threads()
    with pytest.raises(TopicsNotReady) as refused:
        await raise_message_limit(kafka_settings, "no-such-topic", 40_000)
    assert client_threads() <= before
    assert "cannot be raised" in str(refused.value)


def test_refused_control_topic_leaves_no_admin_client(kafka_settings: KafkaSettings) -> None:
    before = client_threads()
    with pytest.raises(LinkDown) as refused:
        Markers(client_settings(kafka_settings), uuid4()).ensure_partitions([50_000])
    assert client_threads() <= before
    assert "cannot be created" in str(refused.value)


@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
async def test_stopped_relay_leaves_no_kafka_client(
    database: Database, kafka_settings: KafkaSettings, topic: str, delivery: str
) -> None:
    before = client_threads()
    relay = Relay(database, kafka_settings, RelaySettings.model_validate({"delivery": delivery}))
    await put_events(database, topic, ["a", "b"], count=3)
    async with running(relay):
        await wait_until_all_sent(database)
        assert client_threads() - before
    assert client_threads() <= before
