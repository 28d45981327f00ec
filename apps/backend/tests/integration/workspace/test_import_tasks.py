"""Imports of more than 200 games: a worker executes them with the same guarantees and reports progress."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from backend.workspace.pgn._parsed_file import decode_file
from backend.workspace.pgn._tasks import IMPORT_TASK
from pydantic_core import from_json
from relaybox.db import Database
from relaybox.tasks import TaskLost, cancel_task
from relaybox.tasks._store import claim_tasks

from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.pgn import (
    BROKEN_GAME,
    IMPORT_PATH,
    NO_ROWS,
    fetch_rows,
    games,
    new_worker,
    row_counts,
    running_worker,
    send_pgn,
    task_path,
    wait_for_task_end,
)
from tests.fixtures.studio import Person, Studio, open_studio
from tests.fixtures.waiting import eventually

COMMAND = "SELECT id, status::text, payload::text, error_data::text FROM command_inbox"
TASK = "SELECT input_data::text, aggregate_id FROM async_tasks"
FILE = games(201)


async def begun(studio: Studio, file: str = FILE, query: str = "") -> str:
    """Start an import by a task and return the path of the task, which no worker has claimed."""
    return task_path(await send_pgn(studio.teacher, file, f"{IMPORT_PATH}?title=Spring&{query}"))


async def test_large_file_is_accepted_and_its_task_ends_with_the_report(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    answer = await send_pgn(studio.teacher, FILE, f"{IMPORT_PATH}?title=Spring&parent_id={root['id']}")
    path = task_path(answer)
    assert answer.json() == {"task_id": path.rpartition("/")[2], "status": "PENDING"}
    assert await row_counts(studio) == NO_ROWS
    waiting = await studio.teacher.call("GET", path)
    assert (waiting["task_type"], waiting["progress"], waiting["result"]) == (IMPORT_TASK, 0.0, None)
    async with running_worker(studio):
        done = await wait_for_task_end(studio.teacher, path)
    assert (done["status"], done["progress"], done["error"]) == ("COMPLETED", 100.0, None)
    report = done["result"]
    assert [one["chapters"] for one in report["studies"]] == [64, 64, 64, 9]
    assert (report["chapters"], report["skipped_count"]) == (201, 0)
    tree = await studio.teacher.call("GET", f"/nodes/tree?root_id={root['id']}")
    assert [one["title"] for one in tree["items"]][:3] == ["Club", "Spring", "Spring 1–64"]


async def test_worker_writes_events_of_the_recorded_command(studio: Studio) -> None:
    path = await begun(studio)
    [command] = await fetch_rows(studio, COMMAND)
    assert command["status"] == "PROCESSING"
    async with running_worker(studio):
        report = (await wait_for_task_end(studio.teacher, path))["result"]
    [after] = await fetch_rows(studio, COMMAND)
    assert (after["id"], after["status"]) == (command["id"], "COMPLETED")
    [folder] = await studio.stream(report["folder_id"])
    streams = [await studio.stream(one["id"]) for one in report["studies"]]
    events = [folder, *(event for stream in streams for event in stream)]
    assert {event.correlation_id for event in events} == {command["id"]}
    assert {stream[0].causation_id for stream in streams} == {folder.event_id}
    assert {event.metadata["command_id"] for event in events} == {str(command["id"])}
    assert {event.metadata["source_service"] for event in events} == {"workspace-worker"}
    senders = await fetch_rows(studio, "SELECT DISTINCT payload ->> 'actor_id' AS actor FROM event_outbox")
    assert [one["actor"] for one in senders] == ["teacher"]


async def test_file_is_only_in_the_task_and_removed_at_its_end(studio: Studio) -> None:
    path = await begun(studio)
    [command], [task] = await fetch_rows(studio, COMMAND), await fetch_rows(studio, TASK)
    assert from_json(command["payload"]).keys() == {"size_bytes", "sha256", "parent_id", "asker"}
    assert decode_file(from_json(task["input_data"])["pgn"]).decode() == FILE
    async with running_worker(studio):
        report = (await wait_for_task_end(studio.teacher, path))["result"]
    [after] = await fetch_rows(studio, TASK)
    assert from_json(after["input_data"]).keys() == {"asker"}
    assert after["aggregate_id"] == task["aggregate_id"] == UUID(report["folder_id"])


async def test_worker_continues_the_chain_of_the_request(studio: Studio) -> None:
    chain = "11111111-2222-4333-8444-555555555555"
    path = task_path(await send_pgn(studio.teacher, FILE, headers={"X-Correlation-Id": chain}))
    async with running_worker(studio):
        report = (await wait_for_task_end(studio.teacher, path))["result"]
    [folder] = await studio.stream(report["folder_id"])
    assert str(folder.correlation_id) == chain


async def test_refused_import_fails_with_game_and_line_and_writes_nothing(studio: Studio) -> None:
    path = await begun(studio, f"{FILE}\n{BROKEN_GAME}", "strict=true")
    nothing_in_it = await begun(studio, "\n".join([BROKEN_GAME] * 201))
    async with running_worker(studio):
        failed = await wait_for_task_end(studio.teacher, path)
        empty = await wait_for_task_end(studio.teacher, nothing_in_it)
    assert (failed["status"], failed["result"]) == ("FAILED", None)
    error = failed["error"]
    assert (error["error_code"], error["game"], error["line"]) == ("PGN_INVALID", 202, 1412)
    assert "Ke4" in error["reason"]
    assert (empty["error"]["error_code"], empty["error"]["game"]) == ("PGN_INVALID", 1)
    assert await row_counts(studio) == NO_ROWS
    assert [one["status"] for one in await fetch_rows(studio, COMMAND)] == ["FAILED", "FAILED"]
    assert [from_json(one["input_data"]).keys() for one in await fetch_rows(studio, TASK)] == [{"asker"}] * 2


async def test_import_task_checks_its_parent_again(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    folder = await studio.teacher.node("folder", "Club", root)
    await studio.teacher.share(root, "pupil", "editor")
    into = f"{IMPORT_PATH}?parent_id={folder['id']}"
    trashed = task_path(await send_pgn(studio.teacher, FILE, into))
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}", match=1)
    lost = task_path(await send_pgn(studio.pupil, FILE, f"{IMPORT_PATH}?parent_id={root['id']}"))
    await studio.teacher.call("PUT", f"/share/{root['id']}/users/pupil", {"role": "viewer"})
    async with running_worker(studio):
        assert (await wait_for_task_end(studio.teacher, trashed))["error"]["error_code"] == "NODE_NOT_FOUND"
        assert (await wait_for_task_end(studio.pupil, lost))["error"]["error_code"] == "ROLE_MISSING"
    assert await row_counts(studio) == NO_ROWS


async def test_progress_increases_while_a_file_is_parsed(studio: Studio) -> None:
    await begun(studio)
    seen: list[float] = []

    async def note(percent: float) -> None:
        seen.append(percent)

    async with studio.backbone.database.connection() as connection:
        [task] = await claim_tasks(connection, [IMPORT_TASK], tasks_max=1, lease_s=60)
    await new_worker(studio)._import(task, note)
    assert len(seen) >= 4
    assert seen == sorted(seen)
    assert 79 < seen[-1] <= 80


@pytest.mark.guarantee("G43")
async def test_worker_that_lost_its_task_writes_nothing(studio: Studio) -> None:
    await begun(studio)
    async with studio.backbone.database.connection() as connection:
        [task] = await claim_tasks(connection, [IMPORT_TASK], tasks_max=1, lease_s=60)
        assert await cancel_task(connection, task.id)

    async def unheard(_percent: float) -> None:
        """Ignore the loss of the task, like a process that was frozen."""

    with pytest.raises(TaskLost):
        await new_worker(studio)._import(task, unheard)
    assert await row_counts(studio) == NO_ROWS


async def test_stopping_worker_releases_its_task_and_another_completes_it(
    studio: Studio, superuser: Any
) -> None:
    path = await begun(studio)
    async with closed_gate(superuser, Gate("UPDATE", "async_tasks", "NEW.status = 'COMPLETED'")) as gate:
        async with running_worker(studio, stop_grace_s=0):
            await gate.wait_until_reached()
        assert (await studio.teacher.call("GET", path))["status"] == "PENDING"
        assert await row_counts(studio) == NO_ROWS
    async with running_worker(studio):
        done = await wait_for_task_end(studio.teacher, path)
    assert (done["status"], (await row_counts(studio))["chapters"]) == ("COMPLETED", 201)


async def test_import_fails_after_the_maximum_of_attempts(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.tasks._attempt.retry_pause_s", lambda _attempts: 0.0)
    monkeypatch.setattr("backend.workspace.pgn._worker.decode_file", lambda _text: 1 / 0)
    path = await begun(studio)
    async with running_worker(studio, attempts_max=2):
        failed = await wait_for_task_end(studio.teacher, path)
    assert (failed["status"], failed["error"]["error_code"]) == ("FAILED", "TASK_GAVE_UP")
    assert "2 times" in failed["error"]["message"]
    [command], [task] = await fetch_rows(studio, COMMAND), await fetch_rows(studio, TASK)
    assert command["status"] == "FAILED"
    assert from_json(task["input_data"]).keys() == {"asker"}


async def test_task_without_the_package_chess_fails_with_its_error(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = await begun(studio)
    monkeypatch.setattr("backend.workspace.errors._chess.find_spec", lambda _name: None)
    async with running_worker(studio):
        assert (await wait_for_task_end(studio.teacher, path))["error"]["error_code"] == "CHESS_NOT_INSTALLED"


async def test_task_is_visible_to_its_requester_and_to_readers_of_its_node(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await studio.teacher.share(root, "pupil", "viewer")
    path = await begun(studio, query=f"parent_id={root['id']}")
    unknown = f"/tasks/{root['id']}"
    for person, status in ((studio.pupil, 404), (studio.stranger, 404), (studio.anonymous, 401)):
        answer, missing = await person.send("GET", path), await person.send("GET", unknown)
        assert answer.status_code == missing.status_code == status
        assert answer.json()["error_code"] == missing.json()["error_code"]
    async with running_worker(studio):
        await wait_for_task_end(studio.teacher, path)
    assert (await studio.pupil.call("GET", path))["status"] == "COMPLETED"
    assert await studio.stranger.error_code(404, "GET", path) == "NOT_FOUND_IN_NODE"
    assert await studio.teacher.error_code(404, "GET", f"{path}/result") == "NOT_FOUND_IN_NODE"
    assert await studio.teacher.error_code(404, "GET", "/tasks/none") == "NOT_FOUND_IN_NODE"


async def test_repeated_key_of_a_large_import_gets_the_same_task(studio: Studio) -> None:
    keyed = {"headers": {"Idempotency-Key": "once"}}
    first = await send_pgn(studio.teacher, FILE, **keyed)
    again = await send_pgn(studio.teacher, FILE, **keyed)
    assert (again.status_code, again.content) == (202, first.content)
    assert again.headers["location"] == first.headers["location"]
    assert len([*await fetch_rows(studio, TASK)]) == 1


async def test_two_large_imports_into_one_folder_do_not_block_each_other(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    first, second = [await begun(studio, query=f"parent_id={root['id']}") for _ in range(2)]
    async with running_worker(studio):
        ends = [(await wait_for_task_end(studio.teacher, one))["status"] for one in (first, second)]
    assert ends == ["COMPLETED", "COMPLETED"]
    children = await studio.teacher.call("GET", f"/nodes?parent_id={root['id']}")
    assert [one["title"] for one in children["items"]] == ["Spring", "Spring"]


async def test_worker_is_notified_of_a_new_task(database: Database) -> None:
    async with open_studio(database) as studio:
        studio.backbone.notifier.attach(database.sessions)
        await studio.backbone.notifier.start()
        try:
            async with running_worker(studio, poll_s=60) as worker:
                await eventually("a worker that listens", lambda: listening(worker))
                path = await begun(studio)
                assert (await wait_for_task_end(studio.teacher, path))["status"] == "COMPLETED"
        finally:
            await studio.backbone.notifier.stop()


async def listening(worker: Any) -> bool:
    return worker._listener.listening.is_set()


async def test_purge_of_a_study_removes_texts_from_its_import_report(studio: Studio) -> None:
    path = await begun(studio, f"{BROKEN_GAME}\n{FILE}\nKe4 is next")
    async with running_worker(studio):
        report = (await wait_for_task_end(studio.teacher, path))["result"]
    assert [one["note"] for one in report["dropped"]] == ["text between games"]
    study_id = report["studies"][0]["id"]
    detail = await studio.teacher.call("GET", f"/studies/{study_id}")
    await studio.teacher.call("DELETE", f"/nodes/{study_id}", match=detail["version"])
    await studio.teacher.call("DELETE", f"/nodes/{study_id}/purge")
    after = (await studio.teacher.call("GET", path))["result"]
    assert after == {"folder_id": report["folder_id"], "chapters": 201, **counts_of(report)}
    assert counts_of(report) == {"skipped_count": 1, "dropped_count": 1, "normalised_count": 0}
    [outbox] = await fetch_rows(
        studio, "SELECT count(*) FROM async_tasks WHERE result_data::text LIKE '%Ke4%'"
    )
    assert outbox["count"] == 0


def counts_of(report: Any) -> dict[str, int]:
    return {name: count for name, count in report.items() if name.endswith("_count")}


async def test_number_of_waiting_large_imports_of_a_user_is_limited(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.workspace.pgn._file_reader._GAMES_AT_ONCE_MAX", 1)
    # Concurrent requests are counted too.
    answers = await asyncio.gather(*(send_pgn(studio.teacher, games(2)) for _ in range(5)))
    assert sorted(one.status_code for one in answers) == [202] * 3 + [429] * 2
    refused = await send_pgn(studio.teacher, games(2))
    assert refused.json()["error_code"] == "TOO_MANY_IMPORTS"
    assert int(refused.headers["retry-after"]) > 0
    task_path(await send_pgn(studio.pupil, games(2)))
    first = next(one for one in answers if one.status_code == 202)
    async with running_worker(studio):
        await wait_for_task_end(studio.teacher, task_path(first))
    task_path(await send_pgn(studio.teacher, games(2)))


async def test_task_result_is_hidden_after_access_to_the_node_is_lost(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await studio.teacher.share(root, "pupil", "editor")
    path = await begun_by(studio.pupil, root["id"])
    assert (await studio.pupil.call("GET", path))["status"] == "PENDING"
    async with running_worker(studio):
        await wait_for_task_end(studio.pupil, path)
    await studio.teacher.call("DELETE", f"/share/{root['id']}/users/pupil")
    assert await studio.pupil.error_code(404, "GET", path) == "NOT_FOUND_IN_NODE"
    assert (await studio.teacher.call("GET", path))["status"] == "COMPLETED"


async def test_task_error_is_hidden_after_access_to_the_parent_is_lost(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    await studio.teacher.share(root, "pupil", "editor")
    path = await begun_by(studio.pupil, root["id"])
    await studio.teacher.call("PUT", f"/share/{root['id']}/users/pupil", {"role": "viewer"})
    async with running_worker(studio):
        assert (await wait_for_task_end(studio.pupil, path))["error"]["error_code"] == "ROLE_MISSING"
    await studio.teacher.call("DELETE", f"/share/{root['id']}/users/pupil")
    assert await studio.pupil.error_code(404, "GET", path) == "NOT_FOUND_IN_NODE"


async def begun_by(person: Person, parent_id: str | None = None) -> str:
    """Start an import as *person* and return the path of its task."""
    query = "" if parent_id is None else f"?parent_id={parent_id}"
    return task_path(await send_pgn(person, FILE, f"{IMPORT_PATH}{query}"))
