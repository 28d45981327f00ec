"""Purging removes a batch and every copy of its content from PostgreSQL; events stay without content."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic_core import from_json
from relaybox.db import Database
from shared_types.workspace import WorkspaceEvent

from tests.fixtures.gates import Gate, closed_gate, wait_for_row_lock_waiter
from tests.fixtures.node_events import assert_rows_match_events, grant, record_node_events
from tests.fixtures.studio import Person, Studio
from tests.fixtures.table_contents import table_checksums, tables_containing

#: Part of every text that the purge must remove.
SECRET = "Qxb7-whispered"
_LINK_SECRET = (
    "INSERT INTO workspace_link_secrets (link_id, node_id, token_hash, password_hash)"
    " VALUES ($1::uuid, $2::uuid, convert_to($3, 'UTF8'), $3)"
)
_TASK = (
    "INSERT INTO async_tasks (task_type, aggregate_id, input_data)"
    " VALUES ('ImportPgn', $1::uuid, jsonb_build_object('pgn', $2::text))"
)
#: Part of texts that must remain: of a folder further up, and of its events about the study.
_EXPORT = """
    WITH task AS (
        INSERT INTO async_tasks (task_type, aggregate_id, status, result_data)
        VALUES ('workspace.export', $1::uuid, 'COMPLETED',
            jsonb_build_object('nodes', jsonb_build_array($2::text), 'studies', 1))
        RETURNING id, aggregate_id
    )
    INSERT INTO workspace_archives (task_id, node_id, owner_id, file)
    SELECT id, aggregate_id, 'teacher', convert_to($3, 'UTF8') FROM task
"""
_ROW = "SELECT to_jsonb(node)::text AS row FROM workspace_nodes AS node WHERE node.id = $1::uuid"


async def trash(person: Person, node: Any, **query: str) -> None:
    await person.call("DELETE", f"/nodes/{node['id']}", match="*", params=query)


async def fill(studio: Studio, database: Database, study: Any) -> None:
    """Give *study* one of each thing that a node can have, each with the secret."""
    chapter, thread, link = (str(uuid4()) for _ in range(3))
    await record_node_events(
        studio,
        study,
        (
            WorkspaceEvent.CHAPTER_CREATED,
            {"chapter_id": chapter, "position": 0, "title": SECRET, "headers": {}, "moves": {}},
        ),
        (WorkspaceEvent.STUDY_SNAPSHOT_CREATED, {"number": 1, "label": SECRET}),
        (
            WorkspaceEvent.DISCUSSION_THREAD_CREATED,
            {"thread_id": thread, "kind": "note", "title": SECRET, "body": SECRET},
        ),
        (
            WorkspaceEvent.DISCUSSION_REPLY_ADDED,
            {"thread_id": thread, "reply_id": str(uuid4()), "depth": 1, "body": SECRET},
        ),
        (WorkspaceEvent.ACL_SHARED, {"user_id": SECRET, "role": "viewer"}),
        (WorkspaceEvent.ACL_LINK_CREATED, {"link_id": link, "role": "viewer", "has_password": True}),
    )
    async with database.connection() as connection:
        await connection.fetch(_LINK_SECRET, link, study["id"], SECRET)
        await connection.fetch(_TASK, study["id"], SECRET)
        await connection.fetch(_EXPORT, uuid4(), study["id"], SECRET)


async def secret_batch(studio: Studio, database: Database) -> tuple[Any, Any]:
    """Trash a folder with a study, both with the secret everywhere; return the folder and its root."""
    root = await studio.teacher.node("workspace", "Club")
    body = {"kind": "folder", "title": SECRET, "parent_id": root["id"]}
    folder = await studio.teacher.call("POST", "/nodes", body, headers={"Idempotency-Key": "made"})
    study = await studio.teacher.node("study", SECRET, folder, description=SECRET)
    await fill(studio, database, study)
    await trash(studio.teacher, folder, reason=SECRET)
    return root, folder


async def test_purge_leaves_none_of_the_content_in_postgresql(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    root, folder = await secret_batch(studio, database)
    for state, type_ in (
        ("status = 'SENT', sent_at = now()", "study.created"),
        ("status = 'FAILED', error_data = '{}'", "acl.shared"),
    ):
        await superuser.execute(f"UPDATE event_outbox SET {state} WHERE payload ->> 'event_type' = $1", type_)
    before = await tables_containing(superuser, SECRET)
    assert before.keys() >= {
        "workspace_nodes",
        "workspace_chapters",
        "workspace_versions",
        "workspace_threads",
        "workspace_replies",
        "workspace_grants",
        "workspace_link_secrets",
        "domain_events",
        "command_inbox",
        "async_tasks",
        "event_outbox_0",
    }
    assert any(name.startswith("idempotency_") for name in before)
    answer = await studio.teacher.send("DELETE", f"/nodes/{folder['id']}/purge")
    assert (answer.status_code, answer.content) == (204, b"")
    assert await tables_containing(superuser, SECRET) == {}
    assert (await studio.teacher.call("GET", "/trash"))["items"] == []
    tree = await studio.teacher.call("GET", f"/nodes/tree?root_id={root['id']}")
    assert [one["id"] for one in tree["items"]] == [root["id"]]


async def test_purge_is_recorded_and_keeps_events_without_content(studio: Studio, database: Database) -> None:
    _, folder = await secret_batch(studio, database)
    before = await studio.stream(folder["id"])
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}/purge")
    *earlier, purged = await studio.stream(folder["id"])
    assert [(one.type, one.version, one.created_at) for one in earlier] == [
        (one.type, one.version, one.created_at) for one in before
    ]
    assert all(one.erased for one in earlier)
    assert (purged.type, purged.metadata["user_id"]) == ("node.purged", "teacher")
    assert purged.payload == {"batch_id": before[-1].payload["batch_id"], "count": 2}
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT actor, reason, events FROM event_erasures")
    assert (row["actor"], row["reason"]) == ("teacher", "purged from the bin")


@pytest.mark.parametrize("query", ["dryrun=true", "dry_run=true&dry_run=false", "dry_run=true&force=true"])
async def test_purge_with_an_unknown_or_repeated_parameter_is_refused(
    studio: Studio, database: Database, superuser: asyncpg.Connection, query: str
) -> None:
    _, folder = await secret_batch(studio, database)
    path, before = f"/nodes/{folder['id']}/purge?{query}", await table_checksums(superuser)
    assert await studio.teacher.error_code(422, "DELETE", path) == "VALIDATION_ERROR"
    assert await table_checksums(superuser) == before


async def test_dry_run_counts_what_a_purge_removes_and_writes_nothing(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    _, folder = await secret_batch(studio, database)
    path, before = f"/nodes/{folder['id']}/purge", await table_checksums(superuser)
    counts = await studio.teacher.call("DELETE", path, params={"dry_run": "true"})
    assert counts == {
        "nodes": 2,
        "chapters": 1,
        "versions": 1,
        "threads": 1,
        "replies": 1,
        "grants": 1,
        "links": 1,
        "events": 9,
        "commands": 4,
        "tasks": 2,
        "stored_answers": 1,
    }
    assert await table_checksums(superuser) == before
    await studio.teacher.call("DELETE", path)
    [row] = await superuser.fetch("SELECT events, commands, tasks + 1, answers FROM event_erasures")
    assert tuple(row) == (counts["events"], counts["commands"], counts["tasks"], counts["stored_answers"])
    # The file of the export is removed with its content; the rest of the result contains no content.
    [row] = await superuser.fetch("SELECT result_data FROM async_tasks WHERE task_type = 'workspace.export'")
    assert from_json(row["result_data"]).keys() == {"nodes", "studies"}


async def test_batch_erased_in_several_steps_is_erased_completely(
    studio: Studio, database: Database, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backend.workspace.trash._purge._NODES_MAX", 1)
    monkeypatch.setattr("relaybox.events._erase._AGGREGATES_MAX", 1)
    _, folder = await secret_batch(studio, database)
    path = f"/nodes/{folder['id']}/purge"
    counts = await studio.teacher.call("DELETE", path, params={"dry_run": "true"})
    assert (counts["nodes"], counts["events"], counts["stored_answers"]) == (2, 9, 1)
    await studio.teacher.call("DELETE", path)
    assert await tables_containing(superuser, SECRET) == {}


async def test_purge_keeps_nested_batches_at_the_former_parent(studio: Studio, database: Database) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    inner = await studio.teacher.node("folder", parent=folder)
    earlier = await studio.teacher.node("folder", parent=inner)
    within = await studio.teacher.node("study", "kept", earlier)
    await trash(studio.teacher, earlier)
    await trash(studio.teacher, folder)
    await studio.teacher.call("DELETE", f"/nodes/{folder['id']}/purge")
    purged = (await studio.stream(folder["id"]))[-1]
    moved = (await studio.stream(earlier["id"]))[-1]
    assert purged.payload["count"] == 2
    assert (moved.type, moved.causation_id, moved.correlation_id) == (
        "node.moved",
        purged.event_id,
        purged.correlation_id,
    )
    assert moved.payload["parent_id"] == root["id"]
    await assert_rows_match_events(database)
    [item] = (await studio.teacher.call("GET", "/trash"))["items"]
    assert (item["id"], item["count"], item["former_parent"]) == (
        earlier["id"],
        2,
        {"id": inner["id"], "title": None},
    )
    back = await studio.teacher.call("POST", f"/nodes/{earlier['id']}/restore")
    assert (back["restored_to"], back["fallback"]) == (root["id"], True)
    assert (await studio.teacher.call("GET", f"/nodes/{within['id']}"))["title"] == "kept"


async def test_nested_batch_of_a_purged_tree_becomes_a_root_of_its_owner(
    studio: Studio, database: Database
) -> None:
    root = await studio.teacher.node("workspace", visibility="private")
    await grant(studio, root, "pupil", "editor")
    folder = await studio.teacher.node("folder", parent=root)
    await trash(studio.teacher, folder)
    await trash(studio.teacher, root)
    await studio.teacher.call("DELETE", f"/nodes/{root['id']}/purge")
    await assert_rows_match_events(database)
    [item] = (await studio.teacher.call("GET", "/trash"))["items"]
    assert item["id"] == folder["id"]
    back = await studio.teacher.call("POST", f"/nodes/{folder['id']}/restore")
    # The node is as private as its tree was.
    assert (back["restored_to"], back["fallback"], back["visibility"]) == (None, True, "private")
    restored = (await studio.stream(folder["id"]))[-1]
    assert restored.payload["owner_id"] == "teacher"


async def test_only_the_owner_purges(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    await grant(studio, root, "pupil", "admin")
    await grant(studio, root, "viewer", "viewer")
    folder = await studio.teacher.node("folder", parent=root)
    inner = await studio.teacher.node("study", parent=folder)
    path, viewer = f"/nodes/{folder['id']}/purge", studio.person("viewer")
    assert await studio.teacher.error_code(409, "DELETE", path) == "NODE_NOT_TRASHED"
    assert await studio.pupil.error_code(403, "DELETE", path) == "ROLE_MISSING"
    await trash(studio.pupil, folder)
    for query in ("", "?dry_run=true"):
        assert await studio.pupil.error_code(403, "DELETE", path + query) == "ROLE_MISSING"
        assert await viewer.error_code(404, "DELETE", path + query) == "NODE_NOT_FOUND"
        assert await studio.stranger.error_code(404, "DELETE", path + query) == "NODE_NOT_FOUND"
        assert await studio.anonymous.error_code(401, "DELETE", path + query) == "TOKEN_MISSING"
        inside = f"/nodes/{inner['id']}/purge{query}"
        answer = await studio.teacher.send("DELETE", inside)
        assert (answer.status_code, answer.json()["batch_root_id"]) == (409, folder["id"])
    await studio.teacher.call("DELETE", path)
    assert await studio.teacher.error_code(404, "DELETE", path) == "NODE_NOT_FOUND"
    assert await studio.pupil.error_code(404, "POST", f"/nodes/{folder['id']}/restore") == "NODE_NOT_FOUND"


async def test_repeated_purge_with_a_key_gets_the_first_response(studio: Studio) -> None:
    node = await studio.teacher.node("folder")
    await trash(studio.teacher, node)
    path, key = f"/nodes/{node['id']}/purge", {"Idempotency-Key": "gone"}
    first = await studio.teacher.send("DELETE", path, headers=dict(key))
    again = await studio.teacher.send("DELETE", path, headers=dict(key))
    assert (first.status_code, again.status_code) == (204, 204)
    assert again.headers["idempotent-replayed"] == "true"
    assert await studio.stranger.error_code(404, "DELETE", path, headers=dict(key)) == "NODE_NOT_FOUND"


@pytest.mark.parametrize("path", ["/nodes", "/studies"])
async def test_stored_response_about_a_purged_node_is_not_replayed(studio: Studio, path: str) -> None:
    root = await studio.teacher.node("workspace")
    body = {"title": SECRET, "parent_id": root["id"]} | ({"kind": "folder"} if path == "/nodes" else {})
    made = await studio.teacher.call("POST", path, body, headers={"Idempotency-Key": "made"})
    await trash(studio.teacher, made)
    await studio.teacher.call("DELETE", f"/nodes/{made['id']}/purge")
    answer = await studio.teacher.send("POST", path, body, headers={"Idempotency-Key": "made"})
    assert (answer.status_code, answer.json()["error_code"]) == (410, "RESPONSE_NOT_KEPT")
    assert SECRET not in answer.text


async def test_purge_includes_concurrent_writes(
    studio: Studio, database: Database, superuser: asyncpg.Connection
) -> None:
    """A write that began before its study was trashed commits after the purge has begun."""
    folder = await studio.teacher.node("folder")
    study = await studio.teacher.node("study", parent=folder)
    path, change = f"/nodes/{study['id']}", {"description": SECRET}
    async with closed_gate(
        superuser, Gate("INSERT", "domain_events", "NEW.event_type = 'node.updated'")
    ) as gate:
        writing = asyncio.create_task(studio.teacher.call("PATCH", path, change, match=1))
        await gate.wait_until_reached()
        await trash(studio.teacher, folder)
        purging = asyncio.create_task(studio.teacher.call("DELETE", f"/nodes/{folder['id']}/purge"))
        await wait_for_row_lock_waiter(superuser)
        await gate.open()
        await asyncio.gather(writing, purging)
    assert await tables_containing(superuser, SECRET) == {}
    assert [one.erased for one in await studio.stream(study["id"])] == [True, True]
    async with database.connection() as connection:
        assert not await connection.fetch(_ROW, study["id"])


async def test_purge_locks_in_the_common_order(studio: Studio, superuser: asyncpg.Connection) -> None:
    """The tree is locked first, then ids: the batch's root is unlocked while an earlier row is waited for."""
    root = await studio.teacher.node("workspace")
    while True:
        batch = await studio.teacher.node("folder", parent=root)
        inner = await studio.teacher.node("study", parent=batch)
        if inner["id"] < batch["id"]:
            break
    await trash(studio.teacher, batch)
    free = "SELECT id FROM workspace_nodes WHERE id = $1::uuid FOR UPDATE SKIP LOCKED"
    transaction = superuser.transaction()
    await transaction.start()
    await superuser.fetch(free, inner["id"])
    purging = asyncio.create_task(studio.teacher.call("DELETE", f"/nodes/{batch['id']}/purge"))
    await wait_for_row_lock_waiter(superuser)
    assert await superuser.fetchval(free, batch["id"]) == UUID(batch["id"])
    await transaction.rollback()
    await purging
