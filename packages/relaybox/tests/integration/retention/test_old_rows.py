"""Old rows of inbox, tasks, consumed events and dead letters are removed; open and recent rows stay."""

import asyncio
import os
import subprocess
import sys
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from pydantic_core import from_json
from relaybox.db import Database
from relaybox.idempotency import Sweeper
from relaybox.retention import RemovalCounts, remove_old_records
from relaybox.settings import IdempotencySettings, PostgresSettings, RetentionSettings

from tests.fixtures.waiting import eventually

#: For each status one row that is 100 hours old and a new one.
_COMMANDS = """
    INSERT INTO command_inbox (session_id, command_type, status, idempotency_key, created_at)
    SELECT gen_random_uuid(), 'Do', status, 'key of ' || status, now() - make_interval(hours => age)
    FROM unnest(enum_range(NULL::command_status)) AS status, unnest('{100,0}'::int[]) AS age
"""
_TASKS = """
    INSERT INTO async_tasks (task_type, status, lease_until, lease_token, created_at, updated_at)
    SELECT 'do', status, CASE WHEN status = 'RUNNING' THEN now() END,
        CASE WHEN status = 'RUNNING' THEN gen_random_uuid() END, now() - interval '100 h',
        now() - make_interval(hours => age)
    FROM unnest(enum_range(NULL::task_status)) AS status, unnest('{100,0}'::int[]) AS age
"""
_CONSUMED = """
    INSERT INTO consumed_events (consumer, event_id, consumed_at)
    SELECT 'group', gen_random_uuid(), now() - make_interval(hours => age)
    FROM unnest('{100,0}'::int[]) AS age
"""
_LETTERS = """
    INSERT INTO dead_letters (consumer_group, topic, partition, message_offset, message_key, headers, reason,
        error_code, error, attempts, holds_key, status, parked_at, resolved_at)
    SELECT 'group', 'topic', 0, row_number() OVER (), 'key', '[]', 'HANDLER_FAILED', 'FAILED', 'failed', 4,
        true, status, now() - interval '100 h',
        CASE WHEN status IN ('REPLAYED', 'DISCARDED') THEN now() - make_interval(hours => age) END
    FROM unnest(enum_range(NULL::dead_letter_status)) AS status, unnest('{100,0}'::int[]) AS age
"""
_FLOWS = """
    INSERT INTO flow_resume_handles (correlation_id, resume_handle, status, updated_at, expires_at)
    SELECT status::text || age, '{}', status, now() - make_interval(hours => age), now()
    FROM unnest(enum_range(NULL::handle_status)) AS status, unnest('{100,0}'::int[]) AS age
"""
_FLOW_EVENTS = """
    INSERT INTO flow_events (event_type, key, envelope, received_at)
    SELECT 'A.B.Done', 'key', '{}', now() - make_interval(hours => age) FROM unnest('{100,0}'::int[]) AS age
"""
_FLOW_KEYS = """
    INSERT INTO flow_event_keys (event_type, key, changed_at)
    SELECT 'A.B.Done', age, now() - make_interval(hours => age) FROM unnest('{100,0}'::int[]) AS age
"""
#: An ended command, with or without a client's key.
_ENDED = """
    INSERT INTO command_inbox (session_id, command_type, status, idempotency_key, created_at)
    SELECT gen_random_uuid(), 'Do', 'COMPLETED', $1, now() - interval '100 h' FROM generate_series(1, $2)
"""
TWO_DAYS = RetentionSettings(commands_h=48, tasks_h=48, consumed_events_h=48, dead_letters_h=48, flows_h=48)


@pytest.fixture
async def filled(superuser: asyncpg.Connection) -> None:
    for statement in (_COMMANDS, _TASKS, _CONSUMED, _LETTERS):
        await superuser.execute(statement)


@pytest.fixture
async def filled_flows(superuser: asyncpg.Connection) -> None:
    for statement in (_FLOWS, _FLOW_EVENTS, _FLOW_KEYS):
        await superuser.execute(statement)


async def remove(database: Database, settings: RetentionSettings = TWO_DAYS) -> RemovalCounts:
    async with database.connection() as connection:
        return await remove_old_records(connection, settings, key_ttl_h=24)


async def left(superuser: asyncpg.Connection, table: str) -> list[Any]:
    rows = await superuser.fetch(f"SELECT status::text, count(*) AS rows FROM {table} GROUP BY 1 ORDER BY 1")
    return [(row["status"], row["rows"]) for row in rows]


async def test_old_rows_that_have_ended_are_removed_and_no_others(
    database: Database, superuser: asyncpg.Connection, filled: None
) -> None:
    assert await remove(database) == RemovalCounts(
        commands=2, tasks=3, consumed_events=1, dead_letters=2, keys=4
    )
    assert await left(superuser, "command_inbox") == [
        ("COMPLETED", 1),
        ("FAILED", 1),
        ("PROCESSING", 2),
        ("RECEIVED", 2),
    ]
    assert await left(superuser, "async_tasks") == [
        ("CANCELLED", 1),
        ("COMPLETED", 1),
        ("FAILED", 1),
        ("PENDING", 2),
        ("RUNNING", 2),
    ]
    assert await superuser.fetchval("SELECT count(*) FROM consumed_events") == 1
    assert await left(superuser, "dead_letters") == [
        ("DISCARDED", 1),
        ("PARKED", 2),
        ("REPLAYED", 1),
        ("REPLAY_REQUESTED", 2),
    ]
    assert await remove(database) == RemovalCounts(
        commands=0, tasks=0, consumed_events=0, dead_letters=0, keys=0
    )


@pytest.mark.usefixtures("filled_flows")
async def test_ended_flows_and_old_events_are_removed(
    database: Database, superuser: asyncpg.Connection
) -> None:
    removed = await remove(database)
    assert (removed.flow_handles, removed.flow_events, removed.flow_event_keys) == (2, 1, 1)
    assert await left(superuser, "flow_resume_handles") == [
        ("EXPIRED", 1),
        ("PAUSED", 2),
        ("PENDING_PAUSE", 2),
        ("RESUMED", 1),
    ]
    for table in ("flow_events", "flow_event_keys"):
        assert await superuser.fetchval(f"SELECT count(*) FROM {table}") == 1
    assert (await remove(database)).flow_handles == 0


async def test_client_keys_are_removed_after_a_day_and_their_commands_stay(
    database: Database, superuser: asyncpg.Connection, filled: None
) -> None:
    never = RetentionSettings(commands_h=0, tasks_h=0, consumed_events_h=0, dead_letters_h=0)
    assert await remove(database, never) == RemovalCounts(
        commands=0, tasks=0, consumed_events=0, dead_letters=0, keys=4
    )
    keys = await superuser.fetchval("SELECT count(*) FROM command_inbox WHERE idempotency_key IS NOT NULL")
    assert (keys, await superuser.fetchval("SELECT count(*) FROM command_inbox")) == (4, 8)


async def test_locked_row_is_removed_later(
    database: Database, superuser: asyncpg.Connection, filled: None
) -> None:
    async with superuser.transaction():
        await superuser.execute("SELECT FROM command_inbox WHERE status = 'COMPLETED' FOR UPDATE")
        assert (await remove(database)).commands == 1
    assert (await remove(database)).commands == 1


async def test_many_rows_are_removed_in_batches_of_a_thousand(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(
        "INSERT INTO consumed_events (consumer, event_id, consumed_at)"
        " SELECT 'group', gen_random_uuid(), now() - interval '100 h' FROM generate_series(1, 2500)"
    )
    await superuser.execute(
        "CREATE TABLE removed (rows BIGINT);"
        "CREATE FUNCTION count_removed() RETURNS trigger SECURITY DEFINER LANGUAGE plpgsql AS"
        " 'BEGIN INSERT INTO public.removed SELECT count(*) FROM gone; RETURN NULL; END';"
        "CREATE TRIGGER count_removed AFTER DELETE ON consumed_events"
        " REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION count_removed()"
    )
    assert (await remove(database)).consumed_events == 2_500
    rows = await superuser.fetch("SELECT rows FROM removed ORDER BY rows")
    assert [row["rows"] for row in rows] == [500, 1_000, 1_000]


async def test_old_commands_are_removed_before_their_client_keys_are(
    database: Database, superuser: asyncpg.Connection
) -> None:
    for key in (None, "a client's"):
        await superuser.execute(_ENDED, key, 600)
    async with database.connection() as connection:
        removed = await remove_old_records(connection, TWO_DAYS, key_ttl_h=8_760)
    assert removed == RemovalCounts(commands=1_200, tasks=0, consumed_events=0, dead_letters=0, keys=0)


async def test_command_with_a_client_key_writes_no_more_index_entries(superuser: asyncpg.Connection) -> None:
    written: list[int] = []
    # Each statement runs once before: the first entry of an index also writes its root page.
    for key in (None, "a client's") * 2:
        [row] = await superuser.fetch("EXPLAIN (ANALYZE, WAL, FORMAT JSON) " + _ENDED, key, 1)
        written.append(from_json(row[0])[0]["Plan"]["WAL Records"])
    assert written[2] == written[3]


async def test_sweeper_of_a_service_removes_old_rows_and_counts_them(
    database: Database, superuser: asyncpg.Connection, filled: None
) -> None:
    registry = CollectorRegistry()
    sweeper = Sweeper(database, registry, IdempotencySettings(sweep_s=86_400), retention=TWO_DAYS)

    async def counted() -> bool:
        return registry.get_sample_value("relaybox_records_removed_total", {"table": "idempotency_key"}) == 4

    running = asyncio.create_task(sweeper.run())
    try:
        await eventually("the sweep", counted)
    finally:
        sweeper.stop()
        await running
    removed = {
        table: registry.get_sample_value("relaybox_records_removed_total", {"table": table})
        for table in ("command_inbox", "async_tasks", "consumed_events", "dead_letters")
    }
    assert removed == {"command_inbox": 2, "async_tasks": 3, "consumed_events": 1, "dead_letters": 2}


async def test_sweep_command_removes_old_rows_and_reports_them(
    postgres_settings: PostgresSettings, filled: None
) -> None:
    environment = {
        "POSTGRES_HOST": postgres_settings.host,
        "POSTGRES_PORT": str(postgres_settings.port),
        "POSTGRES_DB": postgres_settings.db,
        "POSTGRES_USER": postgres_settings.user,
        "POSTGRES_PASSWORD": postgres_settings.password.get_secret_value(),
        "RETENTION_COMMANDS_H": "48",
        "RETENTION_TASKS_H": "0",
        "RETENTION_DEAD_LETTERS_H": "48",
    }
    program = [sys.executable, "-c", "from relaybox.cli import app; app()", "sweep", "--json"]
    done = await asyncio.to_thread(
        subprocess.run, program, env={**os.environ, **environment}, capture_output=True, check=True
    )
    swept = {"claims": 0, "slots": 0, "busy": False}
    removed = {"commands": 2, "tasks": 0, "consumed_events": 0, "dead_letters": 2, "keys": 4}
    removed |= {"flow_handles": 0, "flow_events": 0, "flow_event_keys": 0}
    assert from_json(done.stdout) == swept | removed


async def test_records_of_consumed_events_are_kept_by_default(
    database: Database, superuser: asyncpg.Connection, filled: None
) -> None:
    await superuser.execute("UPDATE consumed_events SET consumed_at = now() - interval '100 years'")
    assert (await remove(database, RetentionSettings())).consumed_events == 0
    assert await superuser.fetchval("SELECT count(*) FROM consumed_events") == 2
