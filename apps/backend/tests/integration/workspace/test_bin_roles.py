"""The roles that are needed to trash a node, list it in the bin and restore it."""

from typing import Any
from uuid import uuid4

from backend.workspace.http import encode_cursor

from tests.fixtures.node_events import grant, revoke
from tests.fixtures.studio import Person, Studio


async def bin_of(person: Person) -> list[Any]:
    return (await person.call("GET", "/trash"))["items"]


async def club(studio: Studio, **roles: str) -> tuple[Any, Any]:
    """A teacher's tree with a folder, and users with roles on the tree."""
    root = await studio.teacher.node("workspace", "Club")
    for name, role in roles.items():
        await grant(studio, root, name, role)
    return root, await studio.teacher.node("folder", "Openings", root)


async def test_editor_trashes_lists_and_restores_their_own_batch(studio: Studio) -> None:
    root, folder = await club(studio, pupil="editor", viewer="viewer")
    path, viewer = f"/nodes/{folder['id']}", studio.person("viewer")
    assert await viewer.error_code(403, "DELETE", path, match=1) == "ROLE_MISSING"
    assert await studio.stranger.error_code(404, "DELETE", path, match=1) == "NODE_NOT_FOUND"
    await studio.pupil.call("DELETE", path, match=1)
    [seen] = await bin_of(studio.pupil)
    assert (seen["id"], seen["trashed_by"], seen["may_restore"], seen["may_purge"]) == (
        folder["id"],
        "pupil",
        True,
        False,
    )
    assert seen["former_parent"] == {"id": root["id"], "title": "Club"}
    [seen] = await bin_of(studio.teacher)
    assert (seen["may_restore"], seen["may_purge"]) == (True, True)
    assert await bin_of(viewer) == []
    for method, where in (("DELETE", path), ("POST", f"{path}/restore")):
        assert await viewer.error_code(404, method, where, match="*") == "NODE_NOT_FOUND"
        assert await studio.stranger.error_code(404, method, where, match="*") == "NODE_NOT_FOUND"
        assert await studio.anonymous.error_code(401, method, where, match="*") == "TOKEN_MISSING"
    assert await studio.pupil.error_code(409, "DELETE", path, match="*") == "NODE_TRASHED"
    await studio.pupil.call("POST", f"{path}/restore")
    assert await viewer.error_code(403, "POST", f"{path}/restore") == "ROLE_MISSING"
    assert await studio.pupil.error_code(409, "POST", f"{path}/restore") == "NODE_NOT_TRASHED"


async def test_editor_does_not_see_batches_of_others(studio: Studio) -> None:
    _, folder = await club(studio, pupil="editor")
    path = f"/nodes/{folder['id']}"
    inner = await studio.teacher.node("study", parent=folder)
    await studio.teacher.call("DELETE", path, match=1)
    assert await bin_of(studio.pupil) == []
    assert await studio.pupil.error_code(404, "POST", f"{path}/restore") == "NODE_NOT_FOUND"
    assert await studio.pupil.error_code(404, "POST", f"/nodes/{inner['id']}/restore") == "NODE_NOT_FOUND"
    # The editor keeps the role: the error says that the node is in the bin, but not which user trashed it.
    assert await studio.pupil.error_code(409, "DELETE", path, match="*") == "NODE_TRASHED"


async def test_revoked_editor_no_longer_sees_their_batch(studio: Studio) -> None:
    root, folder = await club(studio, pupil="editor")
    path = f"/nodes/{folder['id']}"
    await studio.pupil.call("DELETE", path, match=1)
    await revoke(studio, root, "pupil")
    assert await bin_of(studio.pupil) == []
    assert await studio.pupil.error_code(404, "POST", f"{path}/restore") == "NODE_NOT_FOUND"
    assert await studio.pupil.error_code(404, "DELETE", path, match="*") == "NODE_NOT_FOUND"
    await grant(studio, root, "pupil", "viewer")
    assert len(await bin_of(studio.pupil)) == 1


async def test_private_tree_hides_its_batches_from_grantees(studio: Studio) -> None:
    root, folder = await club(studio, pupil="editor")
    await studio.pupil.call("DELETE", f"/nodes/{folder['id']}", match=1)
    await studio.teacher.call("PATCH", f"/nodes/{root['id']}", {"visibility": "private"}, match="*")
    assert await bin_of(studio.pupil) == []
    await studio.teacher.call("PATCH", f"/nodes/{root['id']}", {"visibility": "public"}, match="*")
    assert len(await bin_of(studio.pupil)) == 1


async def test_bin_does_not_show_a_title_above_the_grant(studio: Studio) -> None:
    _root, folder = await club(studio)
    await grant(studio, folder, "pupil", "editor")
    await studio.pupil.call("DELETE", f"/nodes/{folder['id']}", match=1)
    [seen] = await bin_of(studio.pupil)
    assert seen["former_parent"] == {"id": None, "title": None}


async def test_only_the_owner_trashes_a_whole_tree(studio: Studio) -> None:
    root, _ = await club(studio, pupil="admin")
    path = f"/nodes/{root['id']}"
    assert await studio.pupil.error_code(403, "DELETE", path, match="*") == "ROLE_MISSING"
    await studio.teacher.call("DELETE", path, match="*")
    assert await studio.pupil.error_code(404, "DELETE", path, match="*") == "NODE_NOT_FOUND"
    [seen] = await bin_of(studio.teacher)
    assert (seen["former_parent"], seen["count"]) == (None, 2)


async def test_moved_node_is_in_the_bin_of_its_new_owner(studio: Studio) -> None:
    _, folder = await club(studio, pupil="editor")
    study = await studio.teacher.node("study", parent=folder)
    await studio.teacher.call("DELETE", f"/nodes/{study['id']}", match=1)
    theirs = await studio.pupil.node("workspace")
    await grant(studio, theirs, "teacher", "editor")
    await studio.teacher.call("POST", f"/nodes/{folder['id']}/move", {"parent_id": theirs["id"]}, match=1)
    assert [one["may_purge"] for one in await bin_of(studio.pupil)] == [True]
    assert [one["may_purge"] for one in await bin_of(studio.teacher)] == [False]
    await studio.pupil.call("POST", f"/nodes/{study['id']}/restore")


async def test_editor_cannot_become_owner_by_moving_a_node(studio: Studio) -> None:
    root, folder = await club(studio, pupil="editor")
    theirs = await studio.pupil.node("workspace")
    path, body = f"/nodes/{folder['id']}/move", {"parent_id": theirs["id"]}
    assert await studio.pupil.error_code(403, "POST", path, body, match=1) == "ROLE_MISSING"
    within = await studio.pupil.node("folder", parent=root)
    await studio.pupil.call("POST", path, {"parent_id": within["id"]}, match=1)


async def test_invalid_cursor_of_the_bin_is_refused(studio: Studio) -> None:
    cursor = encode_cursor("0001-01-01T00:00:00+14:00", uuid4())
    code = await studio.teacher.error_code(422, "GET", f"/trash?cursor={cursor}")
    assert code == "VALIDATION_ERROR"
