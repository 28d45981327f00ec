"""The automatic purge: each batch is purged once after its time in the recycle bin."""

import asyncio
from typing import Any

import asyncpg
import pytest
import structlog
from backend.settings import WorkspaceSettings
from backend.workspace.trash import TrashPurger
from prometheus_client import CollectorRegistry
from relaybox.db import Database, DatabaseUnavailable
from relaybox.telemetry import CommandMetrics

from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.studio import Studio
from tests.fixtures.waiting import eventually

_AGE = "UPDATE workspace_nodes SET trashed_at = now() - make_interval(days => $2) WHERE id = $1::uuid"
_STUCK = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'stuck'; END $$;
    CREATE TRIGGER stuck BEFORE DELETE ON workspace_nodes FOR EACH ROW
        WHEN (OLD.title = 'stuck') EXECUTE FUNCTION refuse();
"""


def purger_of(database: Database, days: int = 30) -> TrashPurger:
    metrics = CommandMetrics(CollectorRegistry())
    return TrashPurger(database, WorkspaceSettings(trash_keep_days=days), metrics=metrics)


async def aged(studio: Studio, superuser: asyncpg.Connection, days: int, *nodes: Any) -> None:
    """Trash *nodes* as if it had been *days* ago."""
    for node in nodes:
        await studio.teacher.call("DELETE", f"/nodes/{node['id']}", match="*")
        await superuser.execute(_AGE, node["id"], days)


async def bin_of(studio: Studio) -> list[str]:
    return [one["title"] for one in (await studio.teacher.call("GET", "/trash"))["items"]]


async def test_only_batches_whose_time_has_passed_are_purged(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    old, young = await studio.teacher.node("folder", "old"), await studio.teacher.node("folder", "young")
    await aged(studio, superuser, 31, old)
    await aged(studio, superuser, 29, young)
    assert await purger_of(database, days=0).purge_due() == 0
    assert await purger_of(database).purge_due() == 1
    assert await bin_of(studio) == ["young"]
    purged = (await studio.stream(old["id"]))[-1]
    assert (purged.type, purged.metadata["user_id"]) == ("node.purged", "workspace-worker")
    [row] = await superuser.fetch("SELECT actor, reason FROM event_erasures")
    assert tuple(row) == ("workspace-worker", "in the bin for over 30 days")


async def test_purge_of_a_batch_keeps_what_was_trashed_in_it_later(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    outer = await studio.teacher.node("folder", "outer")
    inner = await studio.teacher.node("folder", "inner", outer)
    await aged(studio, superuser, 5, inner)
    await aged(studio, superuser, 40, outer)
    assert await purger_of(database).purge_due() == 1
    assert await bin_of(studio) == ["inner"]


async def test_two_purgers_never_purge_the_same_batch(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    trees = [await studio.teacher.node("workspace") for _ in range(3)]
    nodes = [await studio.teacher.node("folder", parent=tree) for tree in trees for _ in range(4)]
    await aged(studio, superuser, 31, *nodes)
    taken = [0, 0]
    while await bin_of(studio):
        looks = await asyncio.gather(*(purger_of(database).purge_due() for _ in taken))
        taken = [before + now for before, now in zip(taken, looks, strict=True)]
    assert sum(taken) == len(nodes)
    for node in nodes:
        assert [one.type for one in await studio.stream(node["id"])].count("node.purged") == 1


async def test_locked_tree_is_purged_later(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    root = await studio.teacher.node("workspace")
    old = await studio.teacher.node("folder", "old", root)
    await aged(studio, superuser, 31, old)
    async with closed_gate(
        superuser, Gate("INSERT", "domain_events", "NEW.event_type = 'node.restored'")
    ) as gate:
        restoring = asyncio.create_task(studio.teacher.call("POST", f"/nodes/{old['id']}/restore"))
        await gate.wait_until_reached()
        assert await purger_of(database).purge_due() == 0
        await gate.open()
        await restoring
    assert await purger_of(database).purge_due() == 0
    await studio.teacher.call("GET", f"/nodes/{old['id']}")


async def test_batch_that_cannot_be_purged_does_not_delay_others(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(_STUCK)
    nodes = [await studio.teacher.node("folder", title) for title in ("stuck", "next", "last")]
    for days, node in zip((33, 32, 31), nodes, strict=True):
        await aged(studio, superuser, days, node)
    assert await purger_of(database).purge_due() == 2
    assert await bin_of(studio) == ["stuck"]
    await superuser.execute("DROP TRIGGER stuck ON workspace_nodes")
    assert await purger_of(database).purge_due() == 1


async def test_purger_runs_until_it_is_stopped(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    purger = purger_of(database)
    await aged(studio, superuser, 31, await studio.teacher.node("folder"))
    running = asyncio.create_task(purger.run())

    async def emptied() -> bool:
        return not await bin_of(studio)

    await eventually("the bin's emptying", emptied)
    purger.stop()
    await running


async def test_purger_keeps_running_while_the_database_is_unavailable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempted = asyncio.Event()

    async def refuse(*_: Any, **__: Any) -> Any:
        attempted.set()
        raise DatabaseUnavailable("unavailable")

    monkeypatch.setattr(database, "run_in_transaction", refuse)
    purger = purger_of(database)
    running = asyncio.create_task(purger.run())
    await attempted.wait()
    purger.stop()
    await running


async def test_slow_purge_of_a_batch_does_not_delay_others(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(_STUCK.replace("RAISE EXCEPTION 'stuck'", "PERFORM pg_sleep(60)"))
    nodes = [await studio.teacher.node("folder", title) for title in ("stuck", "next", "last")]
    for days, node in zip((33, 32, 31), nodes, strict=True):
        await aged(studio, superuser, days, node)
    hasty = Database(database.settings.model_copy(update={"statement_timeout_ms": 300}))
    try:
        with structlog.testing.capture_logs() as logged:
            assert await (purger := purger_of(hasty)).purge_due() == 2
            assert await purger.purge_due() == 0
        told = [one for one in logged if one["log_level"] in ("warning", "error")]
        assert [one["node_id"] for one in told] == [nodes[0]["id"]]
    finally:
        await hasty.close()
    assert await bin_of(studio) == ["stuck"]


async def test_many_batches_that_cannot_be_purged_do_not_delay_others(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(_STUCK)
    await aged(studio, superuser, 33, *[await studio.teacher.node("folder", "stuck") for _ in range(12)])
    await aged(studio, superuser, 32, await studio.teacher.node("folder", "good"))
    purger = purger_of(database)
    assert [await purger.purge_due() for _ in range(2)] == [0, 1]
    await superuser.execute("DROP TRIGGER stuck ON workspace_nodes")
    # A few of the failed batches are retried in each run.
    assert [await purger.purge_due() for _ in range(3)] == [5, 5, 2]


async def test_failed_and_restored_batches_do_not_delay_others(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(_STUCK)
    nodes = [await studio.teacher.node("folder", "stuck") for _ in range(6)]
    for days, node in zip(range(38, 32, -1), nodes, strict=True):
        await aged(studio, superuser, days, node)
    purger = purger_of(database)
    assert await purger.purge_due() == 0
    for node in nodes[:5]:
        await studio.teacher.call("POST", f"/nodes/{node['id']}/restore")
    await superuser.execute("DROP TRIGGER stuck ON workspace_nodes")
    # The first run tries the batches that have been restored.
    assert [await purger.purge_due() for _ in range(2)] == [0, 1]
