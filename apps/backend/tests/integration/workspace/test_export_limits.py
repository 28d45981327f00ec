"""Limits of exports: open tasks per user and node, delay of other users, size of files."""

import asyncio
from typing import Any

import asyncpg
import pytest
from backend.settings import WorkspaceSettings
from backend.workspace.pgn import ExportFileCleaner
from backend.workspace.pgn._tasks import EXPORT_TASK, IMPORT_TASK
from relaybox.tasks._store import claim_tasks

from tests.fixtures.pgn import (
    IMPORT_PATH,
    fetch_rows,
    game,
    games,
    import_pgn,
    running_worker,
    send_pgn,
    task_path,
    wait_for_task_end,
)
from tests.fixtures.studio import Person, Studio


@pytest.fixture
async def club(studio: Studio) -> Any:
    """A public workspace with one study."""
    root = await studio.teacher.node("workspace", "Club")
    await studio.teacher.call("PATCH", f"/nodes/{root['id']}", {"visibility": "public"}, match=1)
    await import_pgn(
        studio.teacher, game(1), IMPORT_PATH, params={"title": "Spring", "parent_id": root["id"]}
    )
    return root


async def export(person: Person, node: Any) -> tuple[int, str]:
    """Return the status of the response, and its error code or the path of the task."""
    answer = await person.send("POST", "/export", {"node_id": node["id"]})
    return answer.status_code, task_path(answer) if answer.is_success else answer.json()["error_code"]


async def test_stranger_has_at_most_three_exports_open(studio: Studio, club: Any) -> None:
    answers = await asyncio.gather(*(export(studio.stranger, club) for _ in range(12)))
    assert sorted(status for status, _ in answers) == [202] * 3 + [429] * 9
    refused = await studio.stranger.send("POST", "/export", {"node_id": club["id"]})
    assert (refused.json()["error_code"], refused.headers["retry-after"]) == ("TOO_MANY_EXPORTS", "30")
    async with running_worker(studio):
        await asyncio.gather(
            *(wait_for_task_end(studio.stranger, what) for status, what in answers if status == 202)
        )
    assert (await export(studio.stranger, club))[0] == 202


async def test_open_exports_of_a_node_are_limited_for_readers_only(studio: Studio, club: Any) -> None:
    people = [studio.person(f"reader {number}") for number in range(11)]
    answers = [await export(person, club) for person in people]
    assert answers[-1] == (429, "NODE_EXPORTS_BUSY")
    assert {status for status, _ in answers[:-1]} == {202}
    assert (await export(studio.teacher, club))[0] == 202


async def test_import_is_claimed_before_the_rest_of_a_backlog_of_exports(studio: Studio, club: Any) -> None:
    for _ in range(3):
        await export(studio.stranger, club)
    answer = await send_pgn(studio.pupil, games(201), f"{IMPORT_PATH}?title=Large")
    assert answer.status_code == 202
    async with studio.backbone.database.connection() as connection:
        claimed = [
            (await claim_tasks(connection, [IMPORT_TASK, EXPORT_TASK], tasks_max=1, lease_s=60))[0].task_type
            for _ in range(4)
        ]
    assert claimed == [EXPORT_TASK, IMPORT_TASK, EXPORT_TASK, EXPORT_TASK]


async def test_export_files_of_a_user_have_a_maximum_total_size(studio: Studio, club: Any) -> None:
    _, first = await export(studio.stranger, club)
    _, second = await export(studio.stranger, club)
    async with running_worker(studio, WorkspaceSettings(export_kept_bytes_max=300), concurrency=1):
        states = [await wait_for_task_end(studio.stranger, path) for path in (first, second)]
    assert 150 < states[0]["result"]["bytes"] < 300
    assert (states[1]["status"], states[1]["error"]["error_code"]) == ("FAILED", "EXPORT_SPACE_FULL")
    assert (await studio.stranger.send("GET", f"{first}/result")).status_code == 200


async def test_export_is_refused_while_the_files_of_a_user_are_full(
    studio: Studio, club: Any, superuser: asyncpg.Connection
) -> None:
    _, path = await export(studio.stranger, club)
    async with running_worker(studio):
        await wait_for_task_end(studio.stranger, path)
    await superuser.execute(
        "ALTER TABLE workspace_archives DROP COLUMN size_bytes,"
        " ADD COLUMN size_bytes BIGINT DEFAULT 209715200"
    )
    refused = await studio.stranger.send("POST", "/export", {"node_id": club["id"]})
    assert (refused.status_code, refused.json()["error_code"]) == (429, "EXPORT_SPACE_FULL")
    assert 86_000 < int(refused.headers["retry-after"]) <= 86_400
    assert (await export(studio.pupil, club))[0] == 202


async def test_file_is_stored_once_as_bytes_beside_its_task(studio: Studio, club: Any) -> None:
    _, path = await export(studio.stranger, club)
    async with running_worker(studio):
        done = await wait_for_task_end(studio.stranger, path)
    [archive] = await fetch_rows(studio, "SELECT file, size_bytes, owner_id FROM workspace_archives")
    assert (archive["size_bytes"], archive["owner_id"]) == (done["result"]["bytes"], "stranger")
    assert (await studio.stranger.send("GET", f"{path}/result")).content == archive["file"]
    [task] = await fetch_rows(
        studio, "SELECT result_data ? 'zip' AS has FROM async_tasks WHERE result_data ? 'bytes'"
    )
    assert not task["has"]


async def test_old_files_are_removed_in_batches_and_locked_ones_later(
    studio: Studio, club: Any, superuser: asyncpg.Connection
) -> None:
    await superuser.execute(
        "WITH task AS (INSERT INTO async_tasks (task_type) SELECT 'workspace.export'"
        " FROM generate_series(1, 25) RETURNING id)"
        " INSERT INTO workspace_archives (task_id, node_id, owner_id, file, created_at)"
        " SELECT id, gen_random_uuid(), 'teacher', 'zip', now() - interval '2 h' FROM task"
    )
    cleaner = ExportFileCleaner(studio.backbone.database, WorkspaceSettings(export_keep_h=1))
    async with superuser.transaction():
        await superuser.execute("SELECT FROM workspace_archives LIMIT 1 FOR UPDATE")
        assert await cleaner.remove_old_files() == 24
    assert await cleaner.remove_old_files() == 1


async def test_purge_removes_the_file_of_an_export_of_the_node(studio: Studio, club: Any) -> None:
    empty = await studio.teacher.node("folder", "Empty", club)
    _, path = await export(studio.pupil, empty)
    async with running_worker(studio):
        await wait_for_task_end(studio.pupil, path)
    assert len(list(await fetch_rows(studio, "SELECT FROM workspace_archives"))) == 1
    await studio.teacher.call("DELETE", f"/nodes/{empty['id']}", match="*")
    await studio.teacher.call("DELETE", f"/nodes/{empty['id']}/purge")
    assert list(await fetch_rows(studio, "SELECT FROM workspace_archives")) == []
