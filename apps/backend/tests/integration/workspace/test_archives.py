"""Exports of folders: a worker creates a zip of the nodes that the requester may read."""

import asyncio
import io
import zipfile
from typing import Any

import asyncpg
import pytest
from backend.settings import WorkspaceSettings
from backend.workspace.chess import ReadGame, read_games
from backend.workspace.pgn import ExportFileCleaner
from backend.workspace.pgn._tasks import EXPORT_TASK
from pydantic_core import from_json
from relaybox.db import RetryTransaction
from relaybox.tasks._store import claim_tasks

from tests.fixtures.gates import wait_for_row_lock_waiter
from tests.fixtures.pgn import (
    IMPORT_PATH,
    fetch_rows,
    game,
    games,
    import_pgn,
    new_worker,
    running_worker,
    task_path,
    wait_for_task_end,
)
from tests.fixtures.studio import Person, Studio


async def begun(person: Person, node: Any) -> str:
    """Start an export and return the path of its task."""
    return task_path(await person.send("POST", "/export", {"node_id": node["id"]}))


async def archive(studio: Studio, person: Person, node: Any) -> dict[str, bytes]:
    """Export a node and return the files of the zip by path."""
    path = await begun(person, node)
    async with running_worker(studio):
        done = await wait_for_task_end(person, path)
    assert done["status"] == "COMPLETED", done
    answer = await person.send("GET", f"{path}/result")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/zip")
    assert done["result"] == {"studies": len(names(answer.content)), "bytes": len(answer.content)}
    with zipfile.ZipFile(io.BytesIO(answer.content)) as opened:
        assert opened.testzip() is None
        return {name: opened.read(name) for name in opened.namelist()}


def names(data: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return opened.namelist()


async def study_in(person: Person, parent: Any, title: str, pgn: str) -> Any:
    report = await import_pgn(person, pgn, IMPORT_PATH, params={"title": title, "parent_id": parent["id"]})
    return report["studies"][0]


async def test_tree_becomes_a_zip_with_a_file_for_each_study(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club/2024")
    folder = await studio.teacher.node("folder", "Open: games?", root)
    await studio.teacher.node("folder", "empty", root)
    await study_in(studio.teacher, folder, "Spring", games(2))
    await study_in(studio.teacher, root, "..", game(3))
    held = await archive(studio, studio.teacher, root)
    assert sorted(held) == ["Club 2024/Open games/Spring.pgn", "Club 2024/untitled.pgn"]
    read = [one for one in read_games(held["Club 2024/Open games/Spring.pgn"]) if isinstance(one, ReadGame)]
    assert [one.headers["White"] for one in read] == ["W1", "W2"]
    assert [move.uci for move in read[0].tree.moves] == ["e2e4", "e7e5", "g1f3"]


async def test_export_is_an_event_of_the_node_and_completes_its_command(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    study = await study_in(studio.teacher, root, "Spring", game(1))
    held = await archive(studio, studio.teacher, study)
    assert list(held) == ["Spring.pgn"]
    last = (await studio.stream(study["id"]))[-1]
    assert (last.type, last.payload["studies"]) == ("study.pgn_exported", 1)
    [command] = await fetch_rows(
        studio, "SELECT id, status::text FROM command_inbox WHERE command_type = 'ExportNode'"
    )
    assert (last.correlation_id, command["status"]) == (command["id"], "COMPLETED")
    detail = await studio.teacher.call("GET", f"/studies/{study['id']}")
    assert detail["version"] == 2, "an export changes nothing that an ETag stands for"


async def test_archive_contains_only_nodes_that_its_requester_may_read(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await studio.teacher.share(root, "pupil", "viewer")
    secret = await studio.teacher.node("folder", "secret", root, visibility="private")
    binned = await studio.teacher.node("folder", "binned", root)
    await study_in(studio.teacher, root, "seen", game(1))
    await study_in(studio.teacher, secret, "hidden", game(2))
    await study_in(studio.teacher, binned, "gone", game(3))
    await studio.teacher.call("DELETE", f"/nodes/{binned['id']}", match=1)
    assert sorted(await archive(studio, studio.pupil, root)) == ["Club/seen.pgn"]
    assert sorted(await archive(studio, studio.teacher, root)) == ["Club/secret/hidden.pgn", "Club/seen.pgn"]


async def test_export_needs_read_access_and_its_file_is_for_its_requester(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await studio.teacher.share(root, "pupil", "viewer")
    body = {"node_id": root["id"]}
    assert await studio.stranger.error_code(404, "POST", "/export", body) == "NODE_NOT_FOUND"
    assert await studio.anonymous.error_code(401, "POST", "/export", body) == "TOKEN_MISSING"
    path, others = await begun(studio.pupil, root), await begun(studio.teacher, root)
    refused = await studio.pupil.send("GET", f"{path}/result")
    assert (refused.status_code, refused.json()["error_code"]) == (409, "RESULT_NOT_READY")
    assert refused.json()["status"] == "PENDING"
    async with running_worker(studio):
        await asyncio.gather(wait_for_task_end(studio.pupil, path), wait_for_task_end(studio.teacher, others))
    assert names((await studio.pupil.send("GET", f"{path}/result")).content) == []
    assert await studio.teacher.error_code(404, "GET", f"{path}/result") == "NOT_FOUND_IN_NODE"
    assert await studio.anonymous.error_code(401, "GET", f"{path}/result") == "TOKEN_MISSING"
    await studio.teacher.call("DELETE", f"/share/{root['id']}/users/pupil")
    assert await studio.pupil.error_code(404, "GET", f"{path}/result") == "NOT_FOUND_IN_NODE"


async def test_export_fails_if_its_requester_loses_access(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await studio.teacher.share(root, "pupil", "viewer")
    path = await begun(studio.pupil, root)
    await studio.teacher.call("DELETE", f"/share/{root['id']}/users/pupil")
    async with running_worker(studio):
        failed = await wait_for_task_end(studio.pupil, path)
    assert (failed["status"], failed["error"]["error_code"]) == ("FAILED", "NODE_NOT_FOUND")
    assert [one.type for one in await studio.stream(root["id"])][-1] != "study.pgn_exported"


async def test_export_over_the_size_limit_fails_with_its_error(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await study_in(studio.teacher, root, "Spring", games(3))
    path = await begun(studio.teacher, root)
    async with running_worker(studio, WorkspaceSettings(export_bytes_max=100)):
        failed = await wait_for_task_end(studio.teacher, path)
    assert (failed["status"], failed["error"]["error_code"]) == ("FAILED", "ARCHIVE_TOO_LARGE")


async def test_archive_omits_nodes_that_are_purged_during_the_export(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    purged = await study_in(studio.teacher, root, "purged", game(1))
    await study_in(studio.teacher, root, "stays", game(2))
    path = await begun(studio.teacher, root)
    async with studio.backbone.database.connection() as connection:
        [task] = await claim_tasks(connection, [EXPORT_TASK], tasks_max=1, lease_s=60)

    async def purge(percent: float) -> None:
        """Purge between the reading of both studies and the end of the export."""
        if percent == 80:
            await fetch_rows(studio, "DELETE FROM workspace_nodes WHERE id = $1::uuid", purged["id"])

    await new_worker(studio)._export(task, purge)
    assert names((await studio.teacher.send("GET", f"{path}/result")).content) == ["Club/stays.pgn"]


async def test_export_is_retried_later_when_nodes_are_purged_during_each_attempt(
    studio: Studio,
) -> None:
    root = await studio.teacher.node("workspace", "Club")
    there = [await study_in(studio.teacher, root, f"study {number}", game(1)) for number in range(4)]
    path = await begun(studio.teacher, root)
    async with studio.backbone.database.connection() as connection:
        [task] = await claim_tasks(connection, [EXPORT_TASK], tasks_max=1, lease_s=60)

    async def purge(percent: float) -> None:
        if percent == 80:
            await fetch_rows(studio, "DELETE FROM workspace_nodes WHERE id = $1::uuid", there.pop()["id"])

    with pytest.raises(RetryTransaction):
        await new_worker(studio)._export(task, purge)
    assert len(there) == 1
    assert (await studio.teacher.call("GET", path))["status"] == "RUNNING"
    assert [one.type for one in await studio.stream(root["id"])].count("study.pgn_exported") == 0


async def test_zip_has_no_name_of_a_folder_purged_during_the_export(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    folder = await studio.teacher.node("folder", "whispered", root)
    other = await studio.teacher.node("folder", "other", root)
    study = await study_in(studio.teacher, folder, "Spring", game(1))
    path = await begun(studio.teacher, root)
    async with running_worker(studio):
        await wait_for_task_end(studio.teacher, path)
    await studio.teacher.call("POST", f"/nodes/{study['id']}/move", {"parent_id": other["id"]}, match="*")
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}", match="*")
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}/purge")
    assert await studio.teacher.error_code(409, "GET", f"{path}/result") == "RESULT_NOT_READY"


@pytest.mark.parametrize("whole", [True, False])
async def test_end_of_an_export_locks_nodes_in_the_common_order(
    studio: Studio, superuser: asyncpg.Connection, whole: bool
) -> None:
    """Roots are locked first, then ids: no node is locked while the transaction waits for an earlier one."""
    root = await studio.teacher.node("workspace", "Club")
    while True:
        node = await studio.teacher.node("folder", parent=None if whole else root)
        first = await studio.teacher.node("study", parent=node)
        if first["id"] < node["id"]:
            break
    await begun(studio.teacher, node)
    free = "SELECT id FROM workspace_nodes WHERE id = $1::uuid FOR UPDATE SKIP LOCKED"
    holding = superuser.transaction()
    await holding.start()
    await superuser.fetch(free, first["id"])
    async with running_worker(studio):
        await wait_for_row_lock_waiter(superuser)
        free_still = await superuser.fetchval(f"SELECT count(*) FROM ({free}) AS node", node["id"])
        await holding.commit()
    assert free_still == (not whole)


async def unheard(_percent: float) -> None:
    """Ignore the progress."""


async def test_nodes_of_a_zip_are_stored_so_that_a_purge_finds_it(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    study = await study_in(studio.teacher, root, "Spring", game(1))
    await archive(studio, studio.teacher, root)
    [task] = await fetch_rows(studio, "SELECT result_data::text FROM async_tasks")
    assert from_json(task["result_data"])["nodes"] == sorted([root["id"], study["id"]])


async def test_export_without_the_package_chess_is_501(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = await studio.teacher.node("workspace", "Club")
    monkeypatch.setattr("backend.workspace.errors._chess.find_spec", lambda _name: None)
    code = await studio.teacher.error_code(501, "POST", "/export", {"node_id": root["id"]})
    assert code == "CHESS_NOT_INSTALLED"


async def test_export_file_is_removed_after_its_retention(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await study_in(studio.teacher, root, "Spring", game(1))
    path = await begun(studio.teacher, root)
    async with running_worker(studio):
        await wait_for_task_end(studio.teacher, path)
    database = studio.backbone.database
    assert await ExportFileCleaner(database, WorkspaceSettings(export_keep_h=1)).remove_old_files() == 0
    assert (await studio.teacher.send("GET", f"{path}/result")).status_code == 200
    assert await ExportFileCleaner(database, WorkspaceSettings(export_keep_h=1e-9)).remove_old_files() == 1
    assert await studio.teacher.error_code(409, "GET", f"{path}/result") == "RESULT_NOT_READY"
    assert (await studio.teacher.call("GET", path))["result"]["studies"] == 1
