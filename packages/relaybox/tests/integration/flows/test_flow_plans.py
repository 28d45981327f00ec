"""Statements of one flow read only its own rows, however many flows wait."""

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.db import Database, load_queries
from relaybox.operations._flows import _LAST, _PAUSES_OF_FLOW

FLOWS = 20_000
SQL = load_queries("relaybox.flows", "flows.sql")
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


def parts(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every node of *plan*."""
    return [plan, *(part for child in plan.get("Plans", ()) for part in parts(child))]


@pytest.fixture
async def flow_id(superuser: asyncpg.Connection) -> UUID:
    await superuser.execute(_FILL, FLOWS)
    await superuser.execute("ANALYZE async_tasks, flow_waits, flow_events, flow_steps, flow_resume_handles")
    return await superuser.fetchval("SELECT id FROM async_tasks OFFSET 100 LIMIT 1")


def statements(flow_id: UUID) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """Return text and parameters of each statement that concerns one flow, pause or event."""
    place, key = f"{flow_id}/wait", str(flow_id)
    handles = {name: SQL.including(name, **HANDLE) for name in ("confirm", "cancel", "expire_one", "fetch")}
    return {name: (text, (place,)) for name, text in handles.items()} | {
        "pause": (SQL.including("pause", **HANDLE), (f"{flow_id}/next", "{}", 60.0, None)),
        "resume": (SQL.including("resume", **HANDLE), (place, "{}", 60.0)),
        "lock_handle": (SQL["lock_handle"], (place,)),
        "waiting_pauses": (SQL["waiting_pauses"], (flow_id,)),
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
    scans: list[str] = []
    async with database.connection() as connection:
        await connection.fetch(f"SET plan_cache_mode = {plan}")
        for name, (text, arguments) in statements(flow_id).items():
            [row] = await connection.fetch("EXPLAIN (ANALYZE, FORMAT JSON) " + text, *arguments)
            document = row[0] if isinstance(row[0], list) else json.loads(row[0])
            nodes = parts(document[0]["Plan"])
            scans += [f"{name}: {one['Relation Name']}" for one in nodes if one["Node Type"] == "Seq Scan"]
            read = sum(one["Actual Rows"] * one["Actual Loops"] for one in nodes)
            removed = sum(one.get("Rows Removed by Filter", 0) for one in nodes)
            assert read + removed < 20, name
    assert not scans
