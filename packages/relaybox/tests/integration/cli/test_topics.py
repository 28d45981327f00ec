"""``relaybox topics`` on a real Kafka."""

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from relaybox.cli import app
from relaybox.db import Database
from relaybox.local import free_port
from relaybox.settings import KafkaSettings, PostgresSettings
from typer.testing import CliRunner, Result

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.processes import command_environment
from tests.fixtures.relays import put_events

Check = Callable[..., Result]


@pytest.fixture
def check(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> Check:
    def run_check(topics: str, *arguments: str, **more: str) -> Result:
        variables = command_environment(postgres_settings, kafka_settings) | {"OUTBOX_TOPICS": topics} | more
        return CliRunner().invoke(app, ["topics", "check", *arguments], env=variables)

    return run_check


def create(kafka: KafkaSettings, topics: str, *arguments: str) -> Result:
    return run(kafka, topics, "create", *arguments)


def run(kafka: KafkaSettings, topics: str, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["topics", *arguments], env=variables_of(kafka, topics))


def variables_of(kafka: KafkaSettings, topics: str) -> dict[str, str]:
    return {"KAFKA_HOST": kafka.host, "KAFKA_PORT": str(kafka.port), "OUTBOX_TOPICS": topics}


def test_create_creates_missing_topics_only(kafka_settings: KafkaSettings) -> None:
    old, new = f"old-{uuid.uuid4().hex}", f"new-{uuid.uuid4().hex}"
    first = create(kafka_settings, old, "--partitions", "3")
    assert (first.exit_code, first.stdout) == (0, f"created {old}\n")

    both = create(kafka_settings, f"{old}, {new}", "--json")
    assert json.loads(both.stdout) == {"created": [new]}
    again = create(kafka_settings, f"{old},{new}")
    assert (again.exit_code, again.stdout) == (0, "nothing to create: every topic exists\n")

    with AdminClient({"bootstrap.servers": kafka_settings.bootstrap_servers}) as client:
        topics = client.list_topics(timeout=WAIT_S).topics
        assert (len(topics[old].partitions), len(topics[new].partitions)) == (3, 8)
        client.delete_topics([old, new])
        client.poll(0)


def test_create_without_broker_prints_one_line() -> None:
    # In a process, with what librdkafka writes to its standard error.
    away = subprocess.run(
        [sys.executable, "-c", "from relaybox.cli import app; app()", "topics", "create"],
        env=os.environ | variables_of(KafkaSettings(host="127.0.0.1", port=free_port()), "domain-events"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert away.returncode == 1
    (line,) = away.stderr.splitlines()
    assert line.startswith("error: ")
    assert "Kafka cannot be reached at 127.0.0.1:" in line


def test_raise_limit_never_lowers_a_limit(
    kafka_settings: KafkaSettings, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(max_message_bytes="4000")
    raised = run(kafka_settings, topic, "raise-limit", topic, "40000")
    line = f"{topic} accepts messages of 40000 bytes; before: 4000\n"
    assert (raised.exit_code, raised.stdout) == (0, line)
    again = run(kafka_settings, topic, "raise-limit", topic, "5000", "--json")
    assert json.loads(again.stdout) == {"bytes_before": 40_000, "bytes_max": 40_000}


def test_raise_limit_names_a_topic_that_does_not_exist(kafka_settings: KafkaSettings) -> None:
    refused = run(kafka_settings, "domain-events", "raise-limit", "no-such-topic", "40000")
    assert refused.exit_code == 1
    (line,) = refused.stderr.splitlines()
    assert "'no-such-topic' cannot be raised" in line


def test_check_of_faultless_topics_exits_with_0(check: Check, topic: str) -> None:
    checked = check(topic)
    assert (checked.exit_code, checked.stderr) == (0, "")
    [line] = [line for line in checked.stdout.splitlines() if line.startswith(topic)]
    assert line.split()[1:] == ["events", "4", "1", "1", "0", "0", "0", "1048588", "ok"]


async def test_check_names_missing_topics_also_of_pending_rows(
    check: Check, database: Database, topic: str
) -> None:
    await put_events(database, "forgotten", ["a"])
    checked = await asyncio.to_thread(check, f"{topic},declared", "--json")
    assert checked.exit_code == 1
    found = json.loads(checked.stdout)
    assert found["ok"] is False
    codes = {each["name"]: [fault["code"] for fault in each["faults"]] for each in found["topics"]}
    events = {name: codes[name] for name in (topic, "declared", "forgotten")}
    assert events == {topic: [], "declared": ["TOPIC_MISSING"], "forgotten": ["TOPIC_MISSING"]}


def test_check_names_a_low_limit_with_the_command(check: Check, make_topic: Callable[..., str]) -> None:
    narrow = make_topic(max_message_bytes="4000")
    checked = check(narrow)
    assert checked.exit_code == 1
    assert f"{narrow}: max.message.bytes=4000, but OUTBOX_MESSAGE_BYTES_MAX=1000000" in checked.stdout
    assert f"TOPIC_LOW_LIMIT; run `relaybox topics raise-limit {narrow} 1000000`" in checked.stdout


def test_check_without_broker_prints_one_line(check: Check) -> None:
    away = check("domain-events", KAFKA_HOST="127.0.0.1", KAFKA_PORT=str(free_port()))
    assert away.exit_code == 1
    [line] = away.stderr.splitlines()
    assert line.startswith("error: Kafka cannot be reached at 127.0.0.1:")
