"""The commands of the page for a blocked key repair it, with a running relay."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from relaybox.db import Database
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import text as sql

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.doc_sections import run_section, shell_blocks
from tests.fixtures.processes import server_environment
from tests.fixtures.relays import (
    first_appearances,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.topic_records import make_producer, run_statement
from tests.unit.test_docs import fences

PAGE = Path(__file__).parents[2] / "docs/how-to/blocked-key.md"
#: The row, the key, the lane and the marker in the commands of the page.
SEQ = 4711
KEY = "6c1f1c1e-0000-0000-0000-000000000000"
LANE = 3
MARKER = UUID("0b8f7c66-0000-0000-0000-000000000000")
LIMIT_BYTES = 4_000
WRITTEN_EARLIER = '{"timestamp": "2026-01-31T11:00:00+00:00"}'
Section = Callable[[str], Awaitable[list[str]]]


@pytest.fixture
def narrow_topic(make_topic: Callable[..., str]) -> str:
    """Create a topic that accepts only small records."""
    return make_topic(max_message_bytes=str(LIMIT_BYTES))


@pytest.fixture
def section(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, narrow_topic: str) -> Section:
    """Run the commands of a section of the page."""

    async def run(heading: str) -> list[str]:
        return await run_section(PAGE, heading, postgres_settings, kafka_settings, narrow_topic)

    return run


@pytest.fixture
async def blocked(
    database: Database, kafka_settings: KafkaSettings, narrow_topic: str, superuser: asyncpg.Connection
) -> AsyncIterator[None]:
    """Run a relay that has just marked the row of the page FAILED; another row waits behind this row."""
    sequence = "pg_get_serial_sequence('event_outbox', 'seq')"
    await superuser.execute(f"SELECT setval({sequence}, {SEQ - 1})")
    await put_events(database, narrow_topic, [KEY], size=LIMIT_BYTES)
    await put_events(database, narrow_topic, [KEY, "another"], first=2)
    # Three attempts were made before: the next one is the last.
    await superuser.execute(f"UPDATE event_outbox SET attempts = 3 WHERE seq = {SEQ}")
    settings = RelaySettings(poll_interval=3_600, compression="none")
    async with running(Relay(database, kafka_settings, settings)):
        await found(database, f"seq = {SEQ} AND status = 'FAILED'")
        await found(database, "key = 'another' AND status = 'SENT'")
        yield


async def execute(shell: asyncio.subprocess.Process, commands: str) -> str:
    """Let *shell* execute *commands*, and return what they print."""
    assert shell.stdin is not None
    assert shell.stdout is not None
    shell.stdin.write(f"{commands}\necho end of the commands\n".encode())
    async with asyncio.timeout(WAIT_S):
        printed = await shell.stdout.readuntil(b"end of the commands\n")
    return printed.decode().removesuffix("end of the commands\n")


async def found(database: Database, where: str) -> None:
    """Wait until a row of the outbox meets the condition."""
    async with asyncio.timeout(WAIT_S):
        while not await rows_of(database, where):  # noqa: ASYNC110 - the database announces no change
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("blocked")
async def test_blocked_key_page_repairs_a_record_too_large(
    database: Database, kafka_settings: KafkaSettings, narrow_topic: str, section: Section
) -> None:
    status, blocked = await section("1. Show the blocked keys")
    assert "1 failed" in status
    assert KEY in blocked
    assert "an operator" in blocked
    shown, raised = await section("2. Find the cause")
    assert "RecordTooLarge" in shown
    assert raised == f"{narrow_topic} accepts messages of 2000000 bytes; before: {LIMIT_BYTES}\n"
    preview, retried = await section("3. Retry the row")
    assert "dry run: 1 would be put back to PENDING" in preview
    assert retried == "1 put back to PENDING\n"
    await wait_until_all_sent(database)
    assert await rows_of(database, "status = 'FAILED'") == []
    [acts] = await section("5. Check the record")
    assert "topic made" in acts
    records = read_topic(kafka_settings.bootstrap_servers, narrow_topic)
    assert first_appearances(records) == {KEY: [1, 2], "another": [2]}


@pytest.mark.usefixtures("blocked")
async def test_blocked_key_page_skips_a_row(
    database: Database, kafka_settings: KafkaSettings, narrow_topic: str, section: Section
) -> None:
    assert await section("4. Or skip the row") == ["1 skipped\n"]
    await wait_until_all_sent(database)
    [acts] = await section("5. Check the record")
    assert "INC-17" in acts
    records = read_topic(kafka_settings.bootstrap_servers, narrow_topic)
    assert first_appearances(records) == {KEY: [2], "another": [2]}


async def test_blocked_key_page_rehearses_a_repair(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    superuser: asyncpg.Connection,
    topic: str,
) -> None:
    # Other tests of the session may have created the page's topic.
    missing = f"rehearsal-{uuid4().hex}"
    writing, repairing = [
        block.replace("rehearsal", missing).replace("domain-events", topic)
        for block in shell_blocks(PAGE, "Rehearse it")
    ]
    environment = server_environment(postgres_settings, kafka_settings) | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    }
    shell = await asyncio.create_subprocess_exec("bash", "-e", stdin=PIPE, stdout=PIPE, env=environment)
    assert await execute(shell, writing) == ""
    # Three attempts were made before: the next one is the last.
    await superuser.execute("UPDATE event_outbox SET attempts = 3 WHERE topic = $1", missing)
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=3_600))):
        await found(database, "status = 'FAILED'")
        blocked, *repaired = [await execute(shell, command) for command in repairing.splitlines()]
        await wait_until_all_sent(database)
    await shell.communicate(b"")  # ends the shell
    assert "TopicUnknown" in blocked
    assert "an operator" in blocked
    assert repaired == [f"created {missing}\n", "1 put back to PENDING\n", "no key is blocked\n"]


async def test_blocked_key_page_continues_a_stopped_lane(
    database: Database,
    kafka_settings: KafkaSettings,
    narrow_topic: str,
    superuser: asyncpg.Connection,
    section: Section,
) -> None:
    origin = await superuser.fetchval("UPDATE relay_origin SET id = gen_random_uuid() RETURNING id")
    publish_marker(kafka_settings, f"relaybox-markers-{origin.hex}")
    keys = [f"key-{number}" for number in range(32)]
    await put_events(database, narrow_topic, keys)
    of_lane = f"key_hash BETWEEN (SELECT hash_min FROM relay_lanes WHERE lane = {LANE}) AND " + (
        f"(SELECT hash_max FROM relay_lanes WHERE lane = {LANE})"
    )
    waiting = len(await rows_of(database, of_lane))
    assert waiting
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=3_600))):
        await found(database, f"EXISTS (SELECT FROM relay_lanes WHERE lane = {LANE} AND fault IS NOT NULL)")
        await found(database, f"(SELECT count(*) FROM event_outbox WHERE status = 'PENDING') = {waiting}")
        _status, blocked = await section("1. Show the blocked keys")
        assert str(MARKER) in blocked
        assert f"lane {LANE} publishes nothing, {waiting} rows wait" in blocked
        assert await section("A lane publishes nothing") == [f"lane {LANE} continues after marker {MARKER}\n"]
        await wait_until_all_sent(database)
    records = read_topic(kafka_settings.bootstrap_servers, narrow_topic)
    assert first_appearances(records) == {key: [1] for key in keys}


async def test_blocked_key_page_repairs_a_lossy_failover(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    async def follow() -> tuple[str, str]:
        heading, codes = "After a failover", (0, 1)
        everything, later = await run_section(PAGE, heading, postgres_settings, kafka_settings, topic, codes)
        return everything, later

    await put_events(database, topic, ["kept", "lost"])
    # Before the time in the command of the page.
    await run_statement(database, f"UPDATE event_outbox SET payload = payload || '{WRITTEN_EARLIER}'")
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=0.1))):
        await wait_until_all_sent(database)
        [lost] = await rows_of(database, "key = 'lost'")
        await run_statement(database, "DELETE FROM event_outbox WHERE key = 'lost'")
        await run_statement(database, "UPDATE relay_origin SET history_changed_at = now()")

        everything, later = await follow()
        assert "not-in-database" in everything
        assert lost["payload"]["event_id"] in everything
        assert everything.endswith("section 'After a failover' in docs/how-to/blocked-key.md.\n")
        assert "No event is lost" in later

        names: dict[str, Any] = {}
        [snippet] = fences(PAGE, "python")
        exec(compile(snippet, "page", "exec", dont_inherit=True), names)
        async with database.sessions() as db:
            await names["write_again"]("domain-events", EventEnvelope.model_validate(lost["payload"]), 1, db)
            await db.execute(
                sql("UPDATE event_outbox SET topic = :topic WHERE status = 'PENDING'"), {"topic": topic}
            )
            await db.commit()
        await wait_until_all_sent(database)
    _, later = await follow()
    assert "No event is lost" in later
    records = [one for one in read_topic(kafka_settings.bootstrap_servers, topic) if one.key == "lost"]
    assert [one.headers.get("ce_causationid") for one in records] == [None, lost["payload"]["event_id"]]


def publish_marker(kafka: KafkaSettings, control_topic: str) -> None:
    """Publish a batch of the lane that PostgreSQL does not know."""
    wanted = NewTopic(control_topic, num_partitions=8, config={"cleanup.policy": "compact"})
    with AdminClient({**kafka.client_config(), "log_level": 0}) as admin:
        admin.create_topics([wanted])[control_topic].result(WAIT_S)
    client = make_producer(kafka)
    client.produce(control_topic, MARKER.bytes, f"lane-{LANE}".encode(), partition=LANE)
    assert client.flush(WAIT_S) == 0
