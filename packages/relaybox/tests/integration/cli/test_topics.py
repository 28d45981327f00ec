"""``relaybox topics create`` as an operator runs it, against a real Kafka."""

import json
import os
import subprocess
import sys
import uuid

from confluent_kafka.admin import AdminClient
from relaybox.local import free_port
from relaybox.settings import KafkaSettings


def create(kafka: KafkaSettings, topics: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {
        "KAFKA_HOST": kafka.host,
        "KAFKA_PORT": str(kafka.port),
        "OUTBOX_TOPICS": topics,
    }
    program = [sys.executable, "-c", "from relaybox.cli import app; app()", "topics", "create", *words]
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
