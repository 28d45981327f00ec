"""`relaybox_commands_total` counts commands of the workspace by type and outcome, like all others."""

from collections.abc import Mapping
from typing import Any

import asyncpg
from backend.settings import WorkspaceSettings
from backend.workspace.trash import TrashPurger
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from relaybox.db import Database
from relaybox.telemetry import CommandMetrics, exposition

from tests.fixtures.pgn import (
    BROKEN_GAME,
    IMPORT_PATH,
    games,
    running_worker,
    send_pgn,
    task_path,
    wait_for_task_end,
)
from tests.fixtures.studio import Studio

Counts = Mapping[tuple[str, str], float]
_IN_COMMIT = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE SQLSTATE '40001' USING MESSAGE = 'refused in COMMIT'; END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON workspace_nodes DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION refuse();
"""
_TRASHED_LONG_AGO = "UPDATE workspace_nodes SET trashed_at = now() - interval '31 days' WHERE id = $1::uuid"


def counts_of(page: str) -> Counts:
    """Return the commands by type and outcome on a page of metrics."""
    return {
        (sample.labels["command_type"], sample.labels["outcome"]): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == "relaybox_commands_total"
    }


async def counts(studio: Studio) -> Counts:
    """Return the current counts of the API."""
    return counts_of((await studio.http.get("/metrics")).text)


async def counted(studio: Studio, before: Counts) -> Counts:
    """Return the difference to *before*."""
    return {
        key: value - before.get(key, 0)
        for key, value in (await counts(studio)).items()
        if value != before.get(key, 0)
    }


async def test_metrics_count_workspace_commands(studio: Studio) -> None:
    before = await counts(studio)
    node = await studio.teacher.node("folder", "Club")
    await studio.teacher.call("PATCH", f"/nodes/{node['id']}", {"title": "Team"}, match=1)
    await studio.teacher.share(node, "pupil", "viewer")
    expected = {("CreateNode", "COMPLETED"): 1, ("UpdateNode", "COMPLETED"): 1, ("ShareNode", "COMPLETED"): 1}
    assert await counted(studio, before) == expected


async def test_metrics_count_refused_workspace_commands(studio: Studio) -> None:
    node = await studio.teacher.node("folder", "Club")
    await studio.teacher.share(node, "pupil", "viewer")
    path, change, before = f"/nodes/{node['id']}", {"title": "Team"}, await counts(studio)
    await studio.teacher.error_code(428, "PATCH", path, change)
    await studio.pupil.error_code(403, "PATCH", path, change, match=1)
    await studio.stranger.error_code(404, "PATCH", path, change, match=1)
    await studio.teacher.error_code(422, "PATCH", path, {"title": ""}, match=1)
    await studio.anonymous.error_code(401, "PATCH", path, change, match=1)
    codes = ("IF_MATCH_MISSING", "ROLE_MISSING", "NODE_NOT_FOUND", "VALIDATION_ERROR")
    assert await counted(studio, before) == {("UpdateNode", code): 1 for code in codes}


async def test_metrics_count_a_refused_import_once(studio: Studio) -> None:
    before = await counts(studio)
    answer = await send_pgn(studio.teacher, BROKEN_GAME)
    assert answer.status_code == 422
    expected = {("ImportPgn", answer.json()["error_code"]): 1}
    assert await counted(studio, before) == expected


async def test_metrics_count_replayed_workspace_commands_separately(studio: Studio) -> None:
    before = await counts(studio)
    body, key = {"kind": "folder", "title": "Club"}, {"Idempotency-Key": "again"}
    for _ in range(2):
        await studio.teacher.call("POST", "/nodes", body, headers=key)
    await studio.teacher.error_code(422, "POST", "/nodes", {**body, "title": "Team"}, headers=key)
    assert await counted(studio, before) == {
        ("CreateNode", "COMPLETED"): 1,
        ("CreateNode", "REPLAYED"): 1,
        ("CreateNode", "IDEMPOTENCY_KEY_REUSED"): 1,
    }


async def test_metrics_do_not_count_workspace_commands_without_change(studio: Studio) -> None:
    node = await studio.teacher.node("folder", "Club")
    await studio.teacher.call("DELETE", f"/nodes/{node['id']}", match=1)
    before = await counts(studio)
    await studio.teacher.call("DELETE", f"/nodes/{node['id']}/purge?dry_run=true")
    assert await counted(studio, before) == {}


async def test_metrics_count_workspace_commands_after_their_commit(
    studio: Studio, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(_IN_COMMIT)
    before = await counts(studio)
    code = await studio.teacher.error_code(503, "POST", "/nodes", {"kind": "folder", "title": "Club"})
    assert await counted(studio, before) == {("CreateNode", code): 1}


async def test_metrics_count_large_imports_in_api_and_worker(studio: Studio) -> None:
    before, registry = await counts(studio), CollectorRegistry()
    answer = await send_pgn(studio.teacher, games(201), f"{IMPORT_PATH}?title=Spring")
    assert await counted(studio, before) == {("ImportPgn", "RECEIVED"): 1}
    async with running_worker(studio, metrics=CommandMetrics(registry)):
        await wait_for_task_end(studio.teacher, task_path(answer))
    assert counts_of(exposition(registry).decode()) == {("ImportPgn", "COMPLETED"): 1}


async def test_metrics_count_imports_that_the_worker_refuses(studio: Studio) -> None:
    root, registry = await studio.teacher.node("workspace", "Club"), CollectorRegistry()
    answer = await send_pgn(studio.teacher, games(201), f"{IMPORT_PATH}?title=Spring&parent_id={root['id']}")
    await studio.teacher.call("DELETE", f"/nodes/{root['id']}", match="*")
    async with running_worker(studio, metrics=CommandMetrics(registry)):
        task: Any = await wait_for_task_end(studio.teacher, task_path(answer))
    assert counts_of(exposition(registry).decode()) == {("ImportPgn", task["error"]["error_code"]): 1}


async def test_metrics_count_purges_of_the_trash_purger(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    node, registry = await studio.teacher.node("folder", "Club"), CollectorRegistry()
    await studio.teacher.call("DELETE", f"/nodes/{node['id']}", match=1)
    await superuser.execute(_TRASHED_LONG_AGO, node["id"])
    purger = TrashPurger(database, WorkspaceSettings(trash_keep_days=30), metrics=CommandMetrics(registry))
    assert await purger.purge_due() == 1
    assert counts_of(exposition(registry).decode()) == {("PurgeNode", "COMPLETED"): 1}
