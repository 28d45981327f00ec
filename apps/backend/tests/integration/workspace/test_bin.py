"""The recycle bin: a node is trashed with everything below it, and exactly these nodes are restored."""

from typing import Any
from uuid import UUID, uuid4

from backend.workspace.access import LEVELS_MAX
from relaybox.db import Database

from tests.fixtures.node_events import insert_folder_chain
from tests.fixtures.studio import Person, Studio

ROW = "SELECT * FROM workspace_nodes WHERE id = $1::uuid"


async def trash(person: Person, node: Any, **query: str) -> None:
    await person.call("DELETE", f"/nodes/{node['id']}", match="*", params=query)


async def restore(person: Person, node: Any) -> Any:
    return await person.call("POST", f"/nodes/{node['id']}/restore")


async def bin_of(person: Person) -> list[Any]:
    page = await person.call("GET", "/trash")
    assert page["next_cursor"] is None
    return page["items"]


async def ids_below(person: Person, node: Any) -> list[str]:
    tree = await person.call("GET", f"/nodes/tree?root_id={node['id']}")
    return [one["id"] for one in tree["items"]]


async def test_trashing_records_one_event_on_the_topmost_node(studio: Studio, database: Database) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    study = await studio.teacher.node("study", parent=folder)
    answer = await studio.teacher.send(
        "DELETE", f"/nodes/{folder['id']}", match=1, params={"reason": "old club"}
    )
    assert (answer.status_code, answer.content) == (204, b"")
    _, trashed = await studio.stream(folder["id"])
    assert trashed.type == "node.trashed"
    assert trashed.payload == {
        "batch_id": trashed.payload["batch_id"],
        "count": 2,
        "reason": "old club",
        "path": [root["id"]],
    }
    assert trashed.metadata["user_id"] == "teacher"
    assert len(await studio.stream(study["id"])) == 1
    async with database.connection() as connection:
        [row] = await connection.fetch(ROW, folder["id"])
    assert (row["trashed_at"], row["trashed_by"]) == (trashed.created_at, "teacher")
    assert (row["trash_reason"], row["trash_count"]) == ("old club", 2)
    assert (str(row["trash_batch_id"]), row["version"]) == (trashed.payload["batch_id"], 2)
    assert row["trash_path"] == [UUID(root["id"])]
    assert row["parent_id"] == UUID(root["id"])


async def test_trashed_node_is_only_in_the_bin(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    study = await studio.teacher.node("study", parent=folder)
    await trash(studio.teacher, folder)
    for node in (folder, study):
        path = f"/nodes/{node['id']}"
        assert await studio.teacher.error_code(404, "GET", path) == "NODE_NOT_FOUND"
        assert (
            await studio.teacher.error_code(404, "PATCH", path, {"title": "x"}, match=2) == "NODE_NOT_FOUND"
        )
    assert await ids_below(studio.teacher, root) == [root["id"]]
    below = {"kind": "study", "title": "x", "parent_id": folder["id"]}
    assert await studio.teacher.error_code(404, "POST", "/nodes", below) == "NODE_NOT_FOUND"


async def test_trashing_requires_the_current_version(studio: Studio) -> None:
    node = await studio.teacher.node("folder")
    path = f"/nodes/{node['id']}"
    assert await studio.teacher.error_code(428, "DELETE", path) == "IF_MATCH_MISSING"
    assert await studio.teacher.error_code(412, "DELETE", path, match=4) == "VERSION_STALE"
    await studio.teacher.call("DELETE", path, match=1)
    assert await studio.teacher.error_code(409, "DELETE", path, match=1) == "NODE_TRASHED"
    assert await studio.stranger.error_code(404, "DELETE", path, match=1) == "NODE_NOT_FOUND"


async def test_repeated_trashing_with_a_key_gets_the_first_response(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    node = await studio.teacher.node("folder", parent=root)
    for method, path in (("DELETE", f"/nodes/{node['id']}"), ("POST", f"/nodes/{node['id']}/restore")):
        first, again = [
            await studio.teacher.send(method, path, match=1, headers={"Idempotency-Key": method})
            for _ in range(2)
        ]
        assert first.is_success
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["idempotent-replayed"] == "true"
    assert len(await studio.stream(node["id"])) == 3


async def test_reason_of_trashing_is_limited_and_storable(studio: Studio) -> None:
    node = await studio.teacher.node("folder")
    for reason in ("x" * 501, "\x00"):
        code = await studio.teacher.error_code(
            422, "DELETE", f"/nodes/{node['id']}", match="*", params={"reason": reason}
        )
        assert code == "VALIDATION_ERROR"


async def test_bin_lists_time_reason_and_former_parent(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    folder = await studio.teacher.node("folder", "Openings", root)
    study = await studio.teacher.node("study", "Caro-Kann", folder)
    await trash(studio.teacher, study)
    await trash(studio.teacher, folder, reason="done")
    newest, oldest = await bin_of(studio.teacher)
    _, trashed = await studio.stream(folder["id"])
    assert newest == {
        "id": folder["id"],
        "kind": "folder",
        "title": "Openings",
        "trashed_at": newest["trashed_at"],
        "trashed_by": "teacher",
        "reason": "done",
        "batch_id": trashed.payload["batch_id"],
        "count": 1,
        "former_parent": {"id": root["id"], "title": "Club"},
        "purge_at": newest["purge_at"],
        "may_restore": True,
        "may_purge": True,
    }
    assert newest["purge_at"][:10] > newest["trashed_at"][:10]
    assert (oldest["id"], oldest["reason"], oldest["count"]) == (study["id"], None, 1)
    assert oldest["former_parent"] == {"id": folder["id"], "title": "Openings"}
    assert await bin_of(studio.stranger) == []
    assert await studio.anonymous.error_code(401, "GET", "/trash") == "TOKEN_MISSING"


async def test_bin_is_paged(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    made = [await studio.teacher.node("folder", parent=root) for _ in range(5)]
    for node in made:
        await trash(studio.teacher, node)
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await studio.teacher.call("GET", "/trash", params={"limit": "2", **cursor})
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    assert seen == [one["id"] for one in reversed(made)]
    assert await studio.teacher.error_code(422, "GET", "/trash?cursor=x") == "VALIDATION_ERROR"


async def test_restored_batch_equals_the_trashed_one(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root, position=7)
    study = await studio.teacher.node("study", parent=folder)
    earlier = await studio.teacher.node("study", parent=folder)
    before = await studio.teacher.call("GET", f"/nodes/{folder['id']}")
    await trash(studio.teacher, earlier)
    await trash(studio.teacher, folder)
    answer = await studio.teacher.send("POST", f"/nodes/{folder['id']}/restore")
    back = answer.json()
    assert (back["restored_to"], back["fallback"], back["count"]) == (root["id"], False, 2)
    assert answer.headers["etag"] == f'"{back["version"]}"' == '"3"'
    after = await studio.teacher.call("GET", f"/nodes/{folder['id']}")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"version", "changed_at"}
    # A node that was trashed separately stays in the bin.
    assert await ids_below(studio.teacher, root) == [root["id"], folder["id"], study["id"]]
    assert [one["id"] for one in await bin_of(studio.teacher)] == [earlier["id"]]
    restored = (await studio.stream(folder["id"]))[-1]
    assert restored.type == "node.restored"
    assert restored.payload["count"] == 2
    assert not restored.payload["fallback"]


async def test_batch_is_restored_to_its_moved_parent(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    study = await studio.teacher.node("study", parent=folder)
    await trash(studio.teacher, study)
    other = await studio.teacher.node("workspace")
    await studio.teacher.call("POST", f"/nodes/{folder['id']}/move", {"parent_id": other["id"]}, match=1)
    back = await restore(studio.teacher, study)
    assert (back["restored_to"], back["fallback"]) == (folder["id"], False)
    assert await ids_below(studio.teacher, other) == [other["id"], folder["id"], study["id"]]


async def test_restore_uses_the_nearest_live_ancestor_without_the_former_parent(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    outer = await studio.teacher.node("folder", parent=root)
    inner = await studio.teacher.node("folder", parent=outer)
    there = await studio.teacher.node("folder", parent=root)
    study = await studio.teacher.node("study", parent=inner)
    await trash(studio.teacher, study)
    await trash(studio.teacher, outer)
    back = await restore(studio.teacher, study)
    assert (back["restored_to"], back["fallback"], back["parent_id"]) == (root["id"], True, root["id"])
    assert back["position"] == there["position"] + 1
    # The batch of the former parent is complete without the restored node.
    assert (await restore(studio.teacher, outer))["count"] == 2
    assert set(await ids_below(studio.teacher, outer)) == {outer["id"], inner["id"]}


async def test_node_without_live_ancestor_is_restored_as_a_root(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", visibility="public")
    folder = await studio.teacher.node("folder", parent=root)
    await trash(studio.teacher, folder)
    await trash(studio.teacher, root)
    back = await restore(studio.teacher, folder)
    assert (back["restored_to"], back["fallback"], back["visibility"]) == (None, True, "public")
    roots = await studio.teacher.call("GET", "/nodes")
    assert [one["id"] for one in roots["items"]] == [folder["id"]]
    # A former root is restored as a root.
    back = await restore(studio.teacher, root)
    assert (back["restored_to"], back["fallback"]) == (None, False)


async def test_restore_keeps_the_visibility_of_a_private_parent(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", visibility="public")
    hidden = await studio.teacher.node("folder", parent=root, visibility="private")
    study = await studio.teacher.node("study", parent=hidden)
    await trash(studio.teacher, study)
    await trash(studio.teacher, hidden)
    back = await restore(studio.teacher, study)
    assert (back["restored_to"], back["visibility"]) == (root["id"], "private")
    assert await studio.stranger.error_code(404, "GET", f"/nodes/{study['id']}") == "NODE_NOT_FOUND"


async def test_study_whose_title_is_taken_stays_in_the_bin(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    study = await studio.teacher.node("study", "Endgames", root)
    await trash(studio.teacher, study)
    other = await studio.teacher.node("study", "Endgames", root)
    answer = await studio.teacher.send("POST", f"/nodes/{study['id']}/restore")
    assert (answer.status_code, answer.json()["error_code"]) == (409, "TITLE_TAKEN")
    assert answer.json()["blocking_id"] == other["id"]
    await studio.teacher.call("PATCH", f"/nodes/{other['id']}", {"title": "Other endgames"}, match=1)
    await restore(studio.teacher, study)


async def test_only_the_root_of_a_batch_can_be_restored(studio: Studio) -> None:
    folder = await studio.teacher.node("folder")
    study = await studio.teacher.node("study", parent=folder)
    path = f"/nodes/{study['id']}/restore"
    assert await studio.teacher.error_code(409, "POST", path) == "NODE_NOT_TRASHED"
    await trash(studio.teacher, folder)
    answer = await studio.teacher.send("POST", path)
    assert (answer.status_code, answer.json()["error_code"]) == (409, "NODE_TRASHED_WITH_ANCESTOR")
    assert answer.json()["batch_root_id"] == folder["id"]
    assert await studio.teacher.error_code(404, "POST", f"/nodes/{uuid4()}/restore") == "NODE_NOT_FOUND"


async def test_restore_is_refused_where_the_tree_would_be_too_deep(
    studio: Studio, database: Database
) -> None:
    root = await studio.teacher.node("workspace")
    bottom = (await insert_folder_chain(database, root, LEVELS_MAX - 3))[-1]
    place = await studio.teacher.node("folder", parent=root)
    former = await studio.teacher.node("folder", parent=place)
    folder = await studio.teacher.node("folder", parent=former)
    await studio.teacher.node("folder", parent=folder)
    await trash(studio.teacher, folder)
    await studio.teacher.call("POST", f"/nodes/{former['id']}/move", {"parent_id": root["id"]}, match=1)
    await trash(studio.teacher, former)
    await studio.teacher.call("POST", f"/nodes/{place['id']}/move", {"parent_id": bottom}, match=1)
    assert await studio.teacher.error_code(422, "POST", f"/nodes/{folder['id']}/restore") == "TREE_TOO_DEEP"
