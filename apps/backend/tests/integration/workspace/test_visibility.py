"""Only admins change a visibility: by an update, by creating a node, or by moving one."""

from typing import Any

from tests.fixtures.studio import Studio


async def _tree(studio: Studio) -> dict[str, Any]:
    """Create a shared tree with a public folder; the pupil is an editor of the tree."""
    root = await studio.teacher.node("workspace")
    await studio.teacher.share(root, "pupil", "editor")
    await studio.teacher.share(root, "ada", "admin")
    folder = await studio.teacher.node("folder", parent=root)
    return {
        "root": root,
        "open": await studio.teacher.node("folder", parent=root, visibility="public"),
        "folder": folder,
        "inherits": await studio.teacher.node("study", parent=folder),
        "own": await studio.teacher.node("study", parent=folder, visibility="shared"),
    }


async def test_editor_cannot_create_a_node_with_its_own_visibility(studio: Studio) -> None:
    root = (await _tree(studio))["root"]
    for visibility in ("public", "private", "shared"):
        body = {"title": visibility, "parent_id": root["id"], "visibility": visibility}
        for path, kind in (("/nodes", {"kind": "folder"}), ("/studies", {})):
            assert await studio.pupil.error_code(403, "POST", path, body | kind) == "ROLE_MISSING"
            made = await studio.person("ada").call("POST", path, {**body, **kind, "title": path + visibility})
            assert made["visibility"] == visibility
    inherits = {"title": "inherits", "parent_id": root["id"], "visibility": None}
    assert (await studio.pupil.call("POST", "/studies", inherits))["visibility"] == "shared"


async def test_editor_cannot_move_a_node_to_another_inherited_visibility(studio: Studio) -> None:
    tree = await _tree(studio)
    move = f"/nodes/{tree['inherits']['id']}/move"
    there, back = {"parent_id": tree["open"]["id"]}, {"parent_id": tree["folder"]["id"]}
    assert await studio.pupil.error_code(403, "POST", move, there, match=1) == "ROLE_MISSING"
    assert (
        await studio.anonymous.error_code(401, "GET", f"/nodes/{tree['inherits']['id']}") == "TOKEN_MISSING"
    )
    moved = await studio.person("ada").call("POST", move, there, match=1)
    assert moved["visibility"] == "public"
    # An editor cannot move a public node to a place where it would be hidden either.
    assert await studio.pupil.error_code(403, "POST", move, back, match=2) == "ROLE_MISSING"


async def test_editor_can_move_a_node_that_keeps_its_visibility(studio: Studio) -> None:
    tree = await _tree(studio)
    to_open = {"parent_id": tree["open"]["id"]}
    moved = await studio.pupil.call("POST", f"/nodes/{tree['own']['id']}/move", to_open, match=1)
    assert moved["visibility"] == "shared"
    assert await studio.stranger.error_code(404, "GET", f"/nodes/{tree['own']['id']}") == "NODE_NOT_FOUND"
    to_root = {"parent_id": tree["root"]["id"]}
    moved = await studio.pupil.call("POST", f"/nodes/{tree['inherits']['id']}/move", to_root, match=1)
    assert moved["visibility"] == "shared"
