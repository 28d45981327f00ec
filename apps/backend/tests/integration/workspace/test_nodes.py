"""Nodes: creating, reading, listing, changing and moving them; each change records an event of the node."""

from typing import Any
from uuid import uuid4

import pytest
from backend.workspace.access import LEVELS_MAX
from backend.workspace.http import encode_cursor
from relaybox.db import Database

from tests.fixtures.studio import Studio

ROW = "SELECT * FROM workspace_nodes WHERE id = $1::uuid"


async def row_of(database: Database, node: Any) -> Any:
    async with database.connection() as connection:
        [row] = await connection.fetch(ROW, node["id"])
    return row


async def test_node_is_created_with_its_event_in_one_transaction(studio: Studio, database: Database) -> None:
    root = await studio.teacher.node("workspace", "Club")
    folder = await studio.teacher.node("folder", "Openings", root, layout={"x": 1.5})
    [event] = await studio.stream(folder["id"])
    assert (event.type, event.version, event.payload["parent_id"]) == ("node.created", 1, root["id"])
    row = await row_of(database, folder)
    assert (row["title"], row["created_at"], row["stream_version"]) == ("Openings", event.created_at, 1)
    assert folder["visibility"] == "shared"


async def test_response_has_etag_and_location(studio: Studio) -> None:
    made = await studio.teacher.send("POST", "/nodes", {"kind": "folder", "title": "x"})
    assert made.headers["etag"] == '"1"'
    assert made.headers["location"] == f"/api/v1/nodes/{made.json()['id']}"
    detail = await studio.teacher.call("GET", f"/nodes/{made.json()['id']}")
    assert detail["role"] == "owner"


async def test_study_has_no_children_and_workspace_has_no_parent(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    study = await studio.teacher.node("study", parent=root)
    body = {"kind": "folder", "title": "below", "parent_id": study["id"]}
    assert await studio.teacher.error_code(422, "POST", "/nodes", body) == "PARENT_INVALID"
    body = {"kind": "workspace", "title": "below", "parent_id": root["id"]}
    assert await studio.teacher.error_code(422, "POST", "/nodes", body) == "PARENT_INVALID"


async def test_two_live_studies_of_a_folder_cannot_have_one_title(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    study = await studio.teacher.node("study", "Endgames", root)
    await studio.teacher.node("folder", "Endgames", root)
    answer = await studio.teacher.send(
        "POST", "/nodes", {"kind": "study", "title": "Endgames", "parent_id": root["id"]}
    )
    assert (answer.status_code, answer.json()["error_code"]) == (409, "TITLE_TAKEN")
    assert answer.json()["blocking_id"] == study["id"]
    other = await studio.teacher.node("study", "Middlegames", root)
    path = f"/nodes/{other['id']}"
    assert (
        await studio.teacher.error_code(409, "PATCH", path, {"title": "Endgames"}, match=1) == "TITLE_TAKEN"
    )


async def test_error_names_the_study_with_the_title_only_to_its_readers(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    await studio.teacher.share(root, "pupil", "editor")
    await studio.teacher.node("study", "Plan", root, visibility="private")
    body = {"kind": "study", "title": "Plan", "parent_id": root["id"]}
    answer = (await studio.pupil.send("POST", "/nodes", body)).json()
    assert (answer["error_code"], answer["blocking_id"]) == ("TITLE_TAKEN", None)
    assert answer["message"] == "a study in the same folder has this title; choose another title"


async def test_change_of_a_node_requires_its_version(studio: Studio) -> None:
    node = await studio.teacher.node("folder", "before")
    path, change = f"/nodes/{node['id']}", {"title": "after", "layout": {"view_mode": "grid"}}
    assert await studio.teacher.error_code(428, "PATCH", path, change) == "IF_MATCH_MISSING"
    stale = await studio.teacher.send("PATCH", path, change, match=7)
    assert (stale.status_code, stale.json()["current_version"]) == (412, 1)
    assert await studio.teacher.error_code(412, "PATCH", path, change, match='W/"1"') == "IF_MATCH_WEAK"
    changed = await studio.teacher.call("PATCH", path, change, match=1)
    assert (changed["title"], changed["layout"], changed["version"]) == ("after", {"view_mode": "grid"}, 3)
    types = [event.type for event in await studio.stream(node["id"])]
    assert types == ["node.created", "node.updated", "node.layout_updated"]


async def test_replay_is_recognised_before_the_version_is_compared(studio: Studio) -> None:
    node = await studio.teacher.node("folder", "before")
    ask = {"match": 1, "headers": {"Idempotency-Key": "once"}}
    first = await studio.teacher.send("PATCH", f"/nodes/{node['id']}", {"title": "after"}, **ask)
    ask = {"match": 1, "headers": {"Idempotency-Key": "once"}}
    again = await studio.teacher.send("PATCH", f"/nodes/{node['id']}", {"title": "after"}, **ask)
    assert (first.status_code, again.status_code, again.content) == (200, 200, first.content)
    assert again.headers["idempotent-replayed"] == "true"


async def test_move_includes_everything_below_the_node(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    here, there = (
        await studio.teacher.node("folder", "a", root),
        await studio.teacher.node("folder", "b", root),
    )
    inner = await studio.teacher.node("folder", "inner", here)
    leaf = await studio.teacher.node("study", "leaf", inner)
    await studio.teacher.call("POST", f"/nodes/{inner['id']}/move", {"parent_id": there["id"]}, match=1)
    detail = await studio.teacher.call("GET", f"/nodes/{leaf['id']}")
    assert [one["title"] for one in detail["path"]][1:] == ["b", "inner"]
    assert len(await studio.stream(leaf["id"])) == 1


async def test_node_cannot_be_moved_below_itself(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    outer = await studio.teacher.node("folder", parent=root)
    inner = await studio.teacher.node("folder", parent=outer)
    path = f"/nodes/{outer['id']}/move"
    assert (
        await studio.teacher.error_code(422, "POST", path, {"parent_id": inner["id"]}, match=1)
        == "TREE_CYCLE"
    )
    assert (
        await studio.teacher.error_code(422, "POST", path, {"parent_id": outer["id"]}, match=1)
        == "TREE_CYCLE"
    )


async def test_folders_nest_100_deep_but_not_without_limit(studio: Studio) -> None:
    parent = await studio.teacher.node("workspace")
    for _ in range(LEVELS_MAX - 1):
        parent = await studio.teacher.node("folder", parent=parent)
    body = {"kind": "folder", "title": "deeper", "parent_id": parent["id"]}
    assert await studio.teacher.error_code(422, "POST", "/nodes", body) == "TREE_TOO_DEEP"


async def test_lists_are_paged_and_the_tree_is_complete(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    made = [await studio.teacher.node("folder", parent=root) for _ in range(5)]
    await studio.teacher.node("study", parent=made[0])
    seen: list[str] = []
    query = f"/nodes?parent_id={root['id']}&limit=2"
    page = await studio.teacher.call("GET", query)
    while True:
        seen += [one["id"] for one in page["items"]]
        if page["next_cursor"] is None:
            break
        page = await studio.teacher.call("GET", f"{query}&cursor={page['next_cursor']}")
    assert seen == [one["id"] for one in made]
    tree = await studio.teacher.call("GET", f"/nodes/tree?root_id={root['id']}")
    assert [one["depth"] for one in tree["items"]] == [0, 1, 1, 1, 1, 1, 2]
    assert len((await studio.teacher.call("GET", f"/nodes/tree?root_id={root['id']}&depth=1"))["items"]) == 6
    assert [one["id"] for one in (await studio.teacher.call("GET", "/nodes"))["items"]] == [root["id"]]


async def test_invalid_cursor_of_nodes_is_refused(studio: Studio) -> None:
    node = await studio.teacher.node("folder")
    below, own = f"/nodes/{node['id']}/children?cursor=", "/nodes?cursor="
    for path, place in [
        (below, (2**31, uuid4())),
        (below, (True, uuid4())),
        (own, ("9999-12-31T23:59:59-12:00", uuid4())),
        (own, ("yesterday", uuid4())),
    ]:
        assert await studio.teacher.error_code(422, "GET", path + encode_cursor(*place)) == "VALIDATION_ERROR"


@pytest.mark.guarantee("G81")
async def test_node_of_another_user_gets_the_response_of_a_missing_one(studio: Studio) -> None:
    node = await studio.teacher.node("folder")
    theirs = await studio.stranger.send("GET", f"/nodes/{node['id']}")
    missing = await studio.stranger.send("GET", f"/nodes/{uuid4()}")
    assert theirs.status_code == missing.status_code == 404
    assert theirs.json()["message"] == missing.json()["message"]
    assert await studio.anonymous.error_code(401, "GET", f"/nodes/{node['id']}") == "TOKEN_MISSING"
    assert await studio.anonymous.error_code(401, "GET", f"/nodes/{uuid4()}") == "TOKEN_MISSING"


async def test_public_node_is_readable_without_token_and_not_writable(studio: Studio) -> None:
    node = await studio.teacher.node("workspace", visibility="public")
    inner = await studio.teacher.node("folder", parent=node)
    hidden = await studio.teacher.node("folder", parent=node, visibility="private")
    assert (await studio.anonymous.call("GET", f"/nodes/{inner['id']}"))["role"] == "viewer"
    path = f"/nodes/{inner['id']}"
    assert await studio.stranger.error_code(403, "PATCH", path, {"title": "x"}, match=1) == "ROLE_MISSING"
    assert await studio.stranger.error_code(404, "GET", f"/nodes/{hidden['id']}") == "NODE_NOT_FOUND"
    tree = await studio.anonymous.call("GET", f"/nodes/tree?root_id={node['id']}")
    assert [one["id"] for one in tree["items"]] == [node["id"], inner["id"]]
    children = await studio.anonymous.call("GET", f"/nodes/{node['id']}/children")
    assert [one["id"] for one in children["items"]] == [inner["id"]]
