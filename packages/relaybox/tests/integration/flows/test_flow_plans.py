"""Statements of one flow read only its own rows, however many flows wait."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.db import Database, Executor, load_queries
from relaybox.operations._flows import _LAST, _PAUSES_OF_FLOW

FLOWS = 20_000
SQL = load_queries("relaybox.flows", "flows.sql")
TASKS = load_queries("relaybox.tasks", "tasks.sql")
HANDLE = {"handle": SQL["handle"]}
_FILL = """
    WITH task AS (
        INSERT INTO async_tasks (task_type, status, input_data, not_before)
        SELECT 'Test.Waits@1', 'PENDING', '{}', now() + interval '1 h' FROM generate_series(1, $1::int)
        RETURNING id
    ), wait AS (
        INSERT INTO flow_waits (task_id, correlation_id, event_type, key)
        SELECT id, id || '/wait', 'Shop.Invoice.Paid', id::text FROM task
    ), event AS (
        INSERT INTO flow_events (event_type, key, envelope)
        SELECT 'Shop.Invoice.Paid', id::text, '{}' FROM task
    ), step AS (
        INSERT INTO flow_steps (task_id, position, name, result) SELECT id, 0, 'first', '{}' FROM task
    )
    INSERT INTO flow_resume_handles (correlation_id, status, resume_handle, expires_at)
    SELECT id || '/wait', 'PAUSED', jsonb_build_object('task_id', id), now() + interval '1 h' FROM task
"""


_TABLES = ("async_tasks", "flow_waits", "flow_events", "flow_steps", "flow_resume_handles")
_END = """
    WITH task AS (
        UPDATE async_tasks SET status = 'COMPLETED', not_before = NULL WHERE status = 'PENDING'
    ), wait AS (
        UPDATE flow_waits SET event = '{}' WHERE event IS NULL
    )
    UPDATE flow_resume_handles SET status = 'RESUMED', resume_payload = '{}' WHERE status = 'PAUSED'
"""
_FILL_READY = """
    INSERT INTO async_tasks (task_type, input_data, created_at)
    SELECT 'Test.Waits@1', '{}', now() - number * interval '1 ms' FROM generate_series(1, $1::int) AS number
"""


def parts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every node of *plan*."""
    return [plan, *(part for child in plan.get("Plans", ()) for part in parts(child))]


async def analyze(superuser: asyncpg.Connection) -> None:
    """Update the statistics of all tables of flows; afterwards nothing else does."""
    for table in _TABLES:
        await superuser.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
        await superuser.execute(f"VACUUM (ANALYZE) {table}")


async def nodes_of(connection: Executor, statement: str, *arguments: Any) -> list[dict[str, Any]]:
    """Execute *statement*, and return every node of its plan."""
    [row] = await connection.fetch("EXPLAIN (ANALYZE, FORMAT JSON) " + statement, *arguments)
    document = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return parts(document[0]["Plan"])


def rows_of(nodes: list[dict[str, Any]]) -> float:
    """Return the number of rows that *nodes* read, those that they dropped included."""
    return sum(
        (one["Actual Rows"] + one.get("Rows Removed by Filter", 0)) * one["Actual Loops"] for one in nodes
    )


@pytest.fixture(params=["fresh", "stale"])
async def flow_id(request: pytest.FixtureRequest, superuser: asyncpg.Connection) -> UUID:
    """Return one of many waiting flows; stale statistics say that as many flows have ended and none waits."""
    await superuser.execute(_FILL, FLOWS)
    if request.param == "stale":
        await superuser.execute(_END)
        await analyze(superuser)
        await superuser.execute(_FILL, FLOWS)
    else:
        await analyze(superuser)
    return await superuser.fetchval("SELECT id FROM async_tasks WHERE status = 'PENDING' OFFSET 100 LIMIT 1")


def statements(flow_id: UUID) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return text and parameters of each statement that concerns one flow, pause or event."""
    place, key = f"{flow_id}/wait", str(flow_id)
    handles = {name: SQL.including(name, **HANDLE) for name in ("confirm", "cancel", "expire_one", "fetch")}
    return {name: (text, (place,)) for name, text in handles.items()} | {
        "pause": (SQL.including("pause", **HANDLE), (f"{flow_id}/next", "{}", 60.0, None)),
        "resume": (SQL.including("resume", **HANDLE), (place, "{}", 60.0)),
        "lock_handle": (SQL["lock_handle"], (place,)),
        "waiting_pauses": (SQL["waiting_pauses"], (flow_id,)),
        "wake_tasks": (TASKS["wake_tasks"], ([flow_id],)),
        "claim_tasks": (TASKS["claim_tasks"], (["Test.Waits@1"], 1, 30.0)),
        "suspend_task": (TASKS["suspend_task"], (flow_id, uuid4(), datetime.now(UTC))),
        "command_of_flow": (SQL["command_of_flow"], (flow_id,)),
        "begin_runs": (SQL["begin_runs"], ([flow_id], [uuid4()])),
        "complete_flows": (SQL["complete_flows"], ([flow_id], [uuid4()], ["{}"])),
        "record_step": (SQL["record_step"], (flow_id, uuid4(), 1, "next", "{}")),
        "deliver_events": (SQL.including("deliver_events", **HANDLE), (["Shop.Invoice.Paid"], [key], ["{}"])),
        "begin_wait": (SQL["begin_wait"], (flow_id, place, "Shop.Invoice.Paid", key)),
        "awaited_event": (SQL["awaited_event"], (flow_id, place)),
        "end_wait": (SQL["end_wait"], (flow_id, place)),
        "pauses_of_flow": (_PAUSES_OF_FLOW, (flow_id, 10)),
        "last_pause": (_LAST, (place, flow_id)),
    }


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_statements_of_one_flow_scan_no_table(database: Database, flow_id: UUID, plan: str) -> None:
    rows_read: dict[str, float] = {}
    scans: list[str] = []
    async with database.connection() as connection:
        await connection.fetch(f"SET plan_cache_mode = {plan}")
        for name, (text, arguments) in statements(flow_id).items():
            nodes = await nodes_of(connection, text, *arguments)
            scans += [f"{name}: {one['Relation Name']}" for one in nodes if one["Node Type"] == "Seq Scan"]
            rows_read[name] = rows_of(nodes)
    assert not scans
    # Rows of all nodes of a plan: that of claim_tasks has more nodes, and reads 23.
    assert rows_read.pop("claim_tasks") < 30
    assert {name: read for name, read in rows_read.items() if read >= 20} == {}


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_claim_reads_only_the_tasks_that_it_claims(
    database: Database, superuser: asyncpg.Connection, plan: str
) -> None:
    await superuser.execute(_FILL, FLOWS)
    await superuser.execute(_END)
    await superuser.execute(_FILL_READY, FLOWS)
    await analyze(superuser)
    async with database.connection() as connection:
        await connection.fetch(f"SET plan_cache_mode = {plan}")
        nodes = await nodes_of(connection, TASKS["claim_tasks"], ["Test.Waits@1"], 1, 30.0)
    assert not [one for one in nodes if one["Node Type"] == "Seq Scan"]
    # An incremental sort reads at least 32 rows.
    assert rows_of(nodes) < 100


@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_claim_beside_waiting_flows_reads_only_due_tasks(
    database: Database, superuser: asyncpg.Connection, flow_id: UUID, plan: str
) -> None:
    await superuser.execute(_FILL_READY, 20)
    await superuser.execute(
        "UPDATE async_tasks SET not_before = now() WHERE id IN"
        " (SELECT id FROM async_tasks WHERE not_before > now() LIMIT 20)"
    )
    async with database.connection() as connection:
        await connection.fetch(f"SET plan_cache_mode = {plan}")
        nodes = await nodes_of(connection, TASKS["claim_tasks"], ["Test.Waits@1"], 10, 30.0)
    assert not [one for one in nodes if one["Node Type"] == "Seq Scan"]
    assert rows_of(nodes) < 500


@pytest.mark.parametrize("ready", [0, 50])
@pytest.mark.parametrize("plan", ["force_custom_plan", "force_generic_plan"])
async def test_measurement_of_tasks_reads_no_waiting_flow(
    database: Database, superuser: asyncpg.Connection, flow_id: UUID, plan: str, ready: int
) -> None:
    await superuser.execute(_FILL_READY, ready)
    async with database.connection() as connection:
        await connection.fetch(f"SET plan_cache_mode = {plan}")
        nodes = await nodes_of(connection, TASKS["measure_backlog"], ["Test.Waits@1"], 10_000)
    assert not [one for one in nodes if one["Node Type"] == "Seq Scan"]
    assert rows_of(nodes) < 20 + 10 * ready


async def test_expiry_reads_only_the_pauses_that_it_expires(
    database: Database, superuser: asyncpg.Connection, flow_id: UUID
) -> None:
    await superuser.execute(
        "UPDATE flow_resume_handles SET expires_at = now() - interval '1 s' WHERE correlation_id = $1",
        f"{flow_id}/wait",
    )
    async with database.connection() as connection:
        nodes = await nodes_of(connection, SQL.including("expire", **HANDLE), 100)
    assert rows_of(nodes) < 20
