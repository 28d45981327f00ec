"""A purge also erases the imports into the purged nodes: their files and their reports."""

import asyncio
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.fixtures.gates import Gate, closed_gate, wait_for_row_lock_waiter
from tests.fixtures.pgn import (
    BROKEN_GAME,
    IMPORT_PATH,
    fetch_rows,
    games,
    running_worker,
    send_pgn,
    task_path,
    wait_for_task_end,
)
from tests.fixtures.studio import Studio
from tests.fixtures.table_contents import tables_containing

#: Part of the file as an illegal move, so that the error quotes it.
SECRET = "Qxb7whispered"
WHISPERED = BROKEN_GAME.replace("Ke4", SECRET)
KEY = "whispered-key"
_TASK = "SELECT status::text, input_data, result_data, error_data, lease_token FROM async_tasks"
_COMMAND = """
    SELECT status::text, payload, error_data, idempotency_key FROM command_inbox
    WHERE command_type = 'ImportPgn'
"""
_EXPORT = """
    INSERT INTO async_tasks (id, task_type, aggregate_id, status, result_data)
    VALUES ($1, 'workspace.export', gen_random_uuid(), 'COMPLETED',
        jsonb_build_object('nodes', jsonb_build_array($2::text)))
"""


@pytest.fixture
async def folder(studio: Studio) -> Any:
    root = await studio.teacher.node("workspace", "Club")
    return await studio.teacher.node("folder", "Club", root)


async def begun(studio: Studio, folder: Any) -> str:
    """Start a large import into *folder*, which a worker would refuse, and return the path of its task."""
    inner = await studio.teacher.node("folder", "Inner", folder)
    answer = await send_pgn(
        studio.teacher,
        f"{games(201)}\n{WHISPERED}",
        f"{IMPORT_PATH}?title=Spring&strict=true&parent_id={inner['id']}",
        headers={"Idempotency-Key": KEY},
    )
    return task_path(answer)


async def purge(studio: Studio, folder: Any) -> None:
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}", match="*")
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}/purge")


async def test_purge_erases_failed_imports_into_its_nodes(
    studio: Studio, folder: Any, superuser: asyncpg.Connection
) -> None:
    path = await begun(studio, folder)
    async with running_worker(studio):
        assert SECRET in (await wait_for_task_end(studio.teacher, path))["error"]["reason"]
    assert (await tables_containing(superuser, SECRET)).keys() >= {"async_tasks", "command_inbox"}
    await purge(studio, folder)
    assert await tables_containing(superuser, SECRET) == {}
    assert await studio.teacher.error_code(404, "GET", path) == "NOT_FOUND_IN_NODE"
    [task], [command] = await fetch_rows(studio, _TASK), await fetch_rows(studio, _COMMAND)
    assert tuple(task) == (*command, None) == ("FAILED", None, None, None, None)


async def test_purge_of_its_folder_cancels_a_waiting_import(studio: Studio, folder: Any) -> None:
    path = await begun(studio, folder)
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}", match="*")
    purging = f"/nodes/{folder['id']}/purge"
    counts = await studio.teacher.call("DELETE", purging, params={"dry_run": "true"})
    # Two folders were created, one was trashed; and the import.
    assert (counts["tasks"], counts["commands"]) == (1, 4)
    await studio.teacher.call("DELETE", purging)
    [task], [command] = await fetch_rows(studio, _TASK), await fetch_rows(studio, _COMMAND)
    assert tuple(task) == ("CANCELLED", None, None, None, None)
    assert tuple(command) == ("FAILED", None, None, None)
    assert await studio.teacher.error_code(404, "GET", path) == "NOT_FOUND_IN_NODE"


async def test_import_into_another_folder_is_not_cancelled_by_a_purge(studio: Studio, folder: Any) -> None:
    other = await studio.teacher.node("folder", "Club")
    path = task_path(await send_pgn(studio.teacher, games(201), f"{IMPORT_PATH}?parent_id={other['id']}"))
    assert (await studio.teacher.call("GET", path))["result"] is None
    await purge(studio, folder)
    async with running_worker(studio):
        assert (await wait_for_task_end(studio.teacher, path))["status"] == "COMPLETED"


async def test_import_that_starts_during_the_purge_of_its_folder_is_erased(
    studio: Studio, folder: Any, superuser: asyncpg.Connection
) -> None:
    async with closed_gate(superuser, Gate("INSERT", "async_tasks", "true")) as gate:
        beginning = asyncio.create_task(begun(studio, folder))
        await gate.wait_until_reached()
        purging = asyncio.create_task(purge(studio, folder))
        await wait_for_row_lock_waiter(superuser)
        await gate.open()
        await asyncio.gather(beginning, purging)
    [task] = await fetch_rows(studio, _TASK)
    assert tuple(task) == ("CANCELLED", None, None, None, None)


async def test_purges_of_different_trees_lock_shared_exports_in_one_order(
    studio: Studio, folder: Any, superuser: asyncpg.Connection
) -> None:
    first, second = UUID(int=1), UUID(int=2)
    for one in (second, first):
        await superuser.fetch(_EXPORT, one, folder["id"])
    free = "SELECT id FROM async_tasks WHERE id = $1 FOR UPDATE SKIP LOCKED"
    transaction = superuser.transaction()
    await transaction.start()
    await superuser.fetch(free, first)
    purging = asyncio.create_task(purge(studio, folder))
    await wait_for_row_lock_waiter(superuser)
    assert await superuser.fetchval(free, second) == second
    await transaction.rollback()
    await purging
