"""``relaybox topics`` as an operator runs it, against a real Kafka."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable

from confluent_kafka.admin import AdminClient
from relaybox.local import free_port
from relaybox.settings import KafkaSettings


def create(kafka: KafkaSettings, topics: str, *words: str) -> subprocess.CompletedProcess[str]:
    return run(kafka, topics, "create", *words)


def run(kafka: KafkaSettings, topics: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "KAFKA_HOST": kafka.host,
        "KAFKA_PORT": str(kafka.port),
        "OUTBOX_TOPICS": topics,
    }
    program = [sys.executable, "-c", "from relaybox.cli import app; app()", "topics", *words]
    return subprocess.run(program, env=environment, capture_output=True, text=True, check=False)


def test_missing_topics_are_made_and_existing_ones_left_alone(kafka_settings: KafkaSettings) -> None:
    old, new = f"old-{uuid.uuid4().hex}", f"new-{uuid.uuid4().hex}"
    first = create(kafka_settings, old, "--partitions", "3")
    assert (first.returncode, first.stdout) == (0, f"created {old}\n")

    both = create(kafka_settings, f"{old}, {new}", "--json")
    assert json.loads(both.stdout) == {"created": [new]}
    again = create(kafka_settings, f"{old},{new}")
    assert (again.returncode, again.stdout) == (0, "nothing to create: every topic exists\n")

    client = AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers})
    topics = client.list_topics(timeout=10).topics
    assert (len(topics[old].partitions), len(topics[new].partitions)) == (3, 8)
    client.delete_topics([old, new])
    client.poll(0)


def test_a_broker_that_is_away_is_one_line() -> None:
    away = create(KafkaSettings(host="127.0.0.1", port=free_port()), "domain-events")
    assert away.returncode == 1
    (line,) = away.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Kafka cannot be reached at 127.0.0.1:" in line


def test_raise_limit_changes_a_lower_limit_alone(
    kafka_settings: KafkaSettings, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(max_message_bytes="4000")
    raised = run(kafka_settings, topic, "raise-limit", topic, "40000")
    assert (raised.returncode, raised.stdout) == (0, f"{topic} takes messages of 40000 bytes, 4000 before\n")
    again = run(kafka_settings, topic, "raise-limit", topic, "5000", "--json")
    assert json.loads(again.stdout) == {"bytes_before": 40_000, "bytes_max": 40_000}


def test_raise_limit_names_a_topic_that_does_not_exist(kafka_settings: KafkaSettings) -> None:
    refused = run(kafka_settings, "domain-events", "raise-limit", "no-such-topic", "40000")
    assert refused.returncode == 1
    (line,) = refused.stderr.splitlines()
    assert "'no-such-topic' cannot be raised" in line
