"""``relaybox verify`` on a real PostgreSQL and a real Kafka."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.local import free_port
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings
from typer.testing import CliRunner, Result

from tests.fixtures.processes import command_environment
from tests.fixtures.relays import put_events, rows_of, running, wait_until_all_sent
from tests.fixtures.topic_records import (
    add_partitions,
    make_producer,
    mark_sent,
    produce,
    publish,
    run_statement,
    write_events,
)


async def run(postgres: PostgresSettings, kafka: KafkaSettings, topic: str, *arguments: str) -> Result:
    environment = command_environment(postgres, kafka) | {"OUTBOX_TOPICS": topic}
    # In a thread, because a command runs its own event loop.
    return await asyncio.to_thread(CliRunner().invoke, app, ["verify", *arguments], env=environment)


async def run_process(
    postgres: PostgresSettings, kafka: KafkaSettings, topic: str, *arguments: str
) -> tuple[int, str, str]:
    """Return exit code, output and errors of a process, with what librdkafka writes."""
    environment = os.environ | command_environment(postgres, kafka) | {"OUTBOX_TOPICS": topic}
    program = [sys.executable, "-c", "from relaybox.cli import app; app()", "verify", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, program, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


def line_of(exit_code: int, output: str, errors: str) -> str:
    """Return the only line of an error."""
    assert (exit_code, output) == (1, "")
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.guarantee("G33")
async def test_verify_exits_with_0_only_without_violations(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    rows = await write_events(database, topic, ["a", "[red]b"], 2)
    await publish(database, kafka_settings, rows[:3])
    clean = await run(postgres_settings, kafka_settings, topic)
    assert (clean.exit_code, clean.stderr) == (0, "")
    assert "No event is lost, duplicated, reordered or spread." in clean.stdout

    produce(make_producer(kafka_settings), rows[:1])
    doubled = await run(postgres_settings, kafka_settings, topic)
    assert doubled.exit_code == 1
    allowed = await run(postgres_settings, kafka_settings, topic, "--allow-duplicates")
    assert (allowed.exit_code, allowed.stderr) == (0, "")
    assert "duplicates are allowed" in allowed.stdout

    await mark_sent(database, rows)
    lost = await run(postgres_settings, kafka_settings, topic, "--allow-duplicates")
    assert (lost.exit_code, lost.stderr) == (1, "")
    assert "Delivery guarantees are violated." in lost.stdout
    (line,) = [line for line in lost.stdout.splitlines() if rows[3]["payload"]["event_id"] in line]
    assert "[red]b" in line, "a key is no markup"


@pytest.mark.guarantee("G33")
async def test_verify_of_a_spread_key_exits_with_1(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    make_topic: Callable[..., str],
) -> None:
    topic = make_topic(partitions=1)
    first, second = await write_events(database, topic, ["key"], 2)
    await publish(database, kafka_settings, [first])
    # murmur2 maps "key" to the second of two partitions.
    add_partitions(kafka_settings, topic, 2)
    await publish(database, kafka_settings, [second])
    done = await run(postgres_settings, kafka_settings, topic, "--allow-duplicates")
    assert (done.exit_code, done.stderr) == (1, "")
    assert "Delivery guarantees are violated." in done.stdout
    (line,) = [line for line in done.stdout.splitlines() if second["payload"]["event_id"] in line]
    assert line.split()[:2] == ["spread", "key"]
    output = json.loads((await run(postgres_settings, kafka_settings, topic, "--json")).stdout)
    assert (output["holds"], output["tallies"]["spread"]) == (False, {"events": 1, "keys": 1})


@pytest.mark.guarantee("G33")
async def test_verify_as_json_prints_the_whole_report(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    rows = await write_events(database, topic, ["a", "b"], 2)
    await mark_sent(database, rows)
    exit_code, printed, errors = await run_process(
        postgres_settings, kafka_settings, topic, "--json", "--key", "a", "--limit", "1"
    )
    assert (exit_code, errors) == (1, "")
    output: dict[str, Any] = json.loads(printed)
    assert output["holds"] is False
    assert output["tallies"]["lost"] == {"events": 2, "keys": 1}
    assert output["tallies"]["duplicated"] == {"events": 0, "keys": 0}
    assert (output["topics"], output["isolation"], output["events"], output["published"]) == (
        [topic],
        "read_committed",
        2,
        0,
    )
    [finding] = output["findings"]
    assert [one["event_id"] for one in finding["examples"]] == [
        row["payload"]["event_id"] for row in rows if row["key"] == "a"
    ]


@pytest.mark.guarantee("G35")
async def test_verify_names_events_that_a_failover_lost(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, topic, ["kept", "lost"])
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=3_600))):
        await wait_until_all_sent(database)
    [lost] = await rows_of(database, "key = 'lost'")
    await run_statement(database, "DELETE FROM event_outbox WHERE key = 'lost'")
    await run_statement(database, "UPDATE relay_origin SET history_changed_at = now()")

    done = await run(postgres_settings, kafka_settings, topic, "--allow-duplicates")
    assert (done.exit_code, done.stderr) == (1, "")
    verdict = (
        "PostgreSQL has lost 1 published event: see section 'After a failover' in docs/how-to/blocked-key.md."
    )
    assert done.stdout.splitlines()[-1] == verdict
    (line,) = [line for line in done.stdout.splitlines() if lost["payload"]["event_id"] in line]
    assert line.split()[:3] == ["not-in-database", "lost", "1"]
    assert f"{topic}, partition " in line

    output = json.loads((await run(postgres_settings, kafka_settings, topic, "--json")).stdout)
    assert (output["holds"], output["remedy"]) == (
        False,
        "section 'After a failover' in docs/how-to/blocked-key.md",
    )
    assert output["tallies"]["not-in-database"] == {"events": 1, "keys": 1}
    [finding] = output["findings"]
    assert (finding["kind"], finding["topic"], finding["key"]) == ("not-in-database", topic, "lost")
    [event] = finding["examples"]
    assert event["event_id"] == lost["payload"]["event_id"]
    assert event["offset"] is not None


async def test_since_accepts_ages_and_iso_8601(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    for since in ("90m", "7d", "2026-01-31", "2026-01-31T12:00:00+01:00"):
        done = await run(postgres_settings, kafka_settings, topic, "--since", since)
        assert done.exit_code == 0, done.stderr
    done = await run(postgres_settings, kafka_settings, topic, "--since", "yesterday")
    assert done.exit_code == 2
    assert "--since" in done.stderr


async def test_verify_of_a_missing_topic_prints_one_line(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    done = await run(postgres_settings, kafka_settings, topic, "--topic", topic, "--topic", "nowhere")
    line = line_of(done.exit_code, done.stdout, done.stderr)
    assert (
        "has no topic nowhere, or this account may not describe it; check the name, grant DESCRIBE on the "
        "topic, or run relaybox topics create" in line
    )


async def test_verify_without_kafka_prints_one_line(postgres_settings: PostgresSettings) -> None:
    away = KafkaSettings(host="127.0.0.1", port=free_port())
    line = line_of(*await run_process(postgres_settings, away, "domain-events"))
    assert f"Kafka cannot be reached at 127.0.0.1:{away.port}: " in line
    assert "Connection refused" in line or "brokers are down" in line


async def test_verify_without_tables_prints_one_line(
    empty_postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    done = await run(empty_postgres_settings, kafka_settings, topic)
    line = line_of(done.exit_code, done.stdout, done.stderr)
    assert "does not exist; run relaybox migrate up, or check POSTGRES_DB" in line


@pytest.mark.parametrize(
    "right", ["SELECT ON event_outbox", "SELECT ON domain_events", 'TEMPORARY ON DATABASE "{}"']
)
async def test_verify_without_a_right_prints_one_line(
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    superuser: asyncpg.Connection,
    right: str,
) -> None:
    await superuser.execute(
        f'REVOKE {right.format(postgres_settings.db)} FROM PUBLIC, "{postgres_settings.user}"'
    )
    done = await run(postgres_settings, kafka_settings, topic)
    line = line_of(done.exit_code, done.stdout, done.stderr)
    assert "permission denied" in line
    assert "GRANT SELECT on the tables, TEMPORARY on the database and EXECUTE on pg_control_system()" in line
