"""Grants: the roles needed to grant, the permissions of a grant, and the users that see it."""

from base64 import b64encode
from typing import Any
from uuid import uuid4

import pytest
from backend.workspace.sharing import _sharing as sharing

from tests.fixtures.studio import Studio


async def test_grant_is_an_event_and_permits_reading_the_node_and_below(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    study = await studio.teacher.node("study", parent=folder)
    body = {"user_id": "pupil", "role": "viewer"}
    made = await studio.teacher.send("POST", f"/share/{folder['id']}/users", body)
    assert (made.status_code, made.json()["granted_by"]) == (201, "teacher")
    assert made.headers["location"] == f"/api/v1/share/{folder['id']}/users/pupil"
    event = (await studio.stream(folder["id"]))[-1]
    assert (event.type, event.payload) == ("acl.shared", {"user_id": "pupil", "role": "viewer"})
    assert (await studio.pupil.call("GET", f"/nodes/{study['id']}"))["role"] == "viewer"
    assert await studio.pupil.error_code(404, "GET", f"/nodes/{root['id']}") == "NODE_NOT_FOUND"


async def test_role_is_changed_only_where_it_was_granted(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    await studio.teacher.share(root, "pupil", "viewer")
    path = f"/share/{root['id']}/users/pupil"
    assert (await studio.teacher.call("PUT", path, {"role": "editor"}))["role"] == "editor"
    await studio.teacher.call("PUT", path, {"role": "editor"})
    types = [event.type for event in await studio.stream(root["id"])]
    assert types == ["node.created", "acl.shared", "acl.role_changed"]
    await studio.pupil.node("study", parent=folder)
    here = f"/share/{folder['id']}/users/pupil"
    assert await studio.teacher.error_code(404, "PUT", here, {"role": "viewer"}) == "NOT_FOUND_IN_NODE"


async def test_second_grant_on_a_node_is_refused_but_allowed_on_a_descendant(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    await studio.teacher.share(root, "pupil", "editor")
    body = {"user_id": "pupil", "role": "viewer"}
    code = await studio.teacher.error_code(409, "POST", f"/share/{root['id']}/users", body)
    assert code == "ALREADY_SHARED"
    await studio.teacher.share(folder, "pupil", "viewer")
    assert (await studio.pupil.call("GET", f"/nodes/{root['id']}"))["role"] == "editor"
    assert (await studio.pupil.call("GET", f"/nodes/{folder['id']}"))["role"] == "viewer"
    change = {"title": "mine"}
    refused = await studio.pupil.error_code(403, "PATCH", f"/nodes/{folder['id']}", change, match=1)
    assert refused == "ROLE_MISSING"


async def test_revoked_grant_ends_access_at_once(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    await studio.teacher.share(node, "pupil", "viewer")
    await studio.teacher.call("DELETE", f"/share/{node['id']}/users/pupil")
    assert await studio.pupil.error_code(404, "GET", f"/nodes/{node['id']}") == "NODE_NOT_FOUND"
    assert (await studio.stream(node["id"]))[-1].type == "acl.revoked"
    again = await studio.teacher.error_code(404, "DELETE", f"/share/{node['id']}/users/pupil")
    assert again == "NOT_FOUND_IN_NODE"


async def test_share_with_oneself_or_with_the_owner_is_refused(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    await studio.teacher.share(node, "admin", "admin")
    admin, path = studio.person("admin"), f"/share/{node['id']}/users"
    for person, user in ((studio.teacher, "teacher"), (admin, "admin"), (admin, "teacher")):
        body = {"user_id": user, "role": "viewer"}
        assert await person.error_code(422, "POST", path, body) == "GRANT_REFUSED"
        assert await person.error_code(422, "PUT", f"{path}/{user}", {"role": "viewer"}) == "GRANT_REFUSED"
    body = {"user_id": "pupil", "role": "owner"}
    assert await studio.teacher.error_code(422, "POST", path, body) == "VALIDATION_ERROR"


async def test_admin_grants_and_revokes_all_roles_except_admin(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    for name in ("ann", "bob"):
        await studio.teacher.share(root, name, "admin")
    ann, path = studio.person("ann"), f"/share/{root['id']}/users"
    await ann.share(root, "pupil", "editor")
    body = {"user_id": "eve", "role": "admin"}
    assert await ann.error_code(403, "POST", path, body) == "ROLE_MISSING"
    assert await ann.error_code(403, "PUT", f"{path}/pupil", {"role": "admin"}) == "ROLE_MISSING"
    assert await ann.error_code(403, "PUT", f"{path}/bob", {"role": "viewer"}) == "ROLE_MISSING"
    assert await ann.error_code(403, "DELETE", f"{path}/bob") == "ROLE_MISSING"
    # The same applies to nodes further down.
    lower = {"user_id": "bob", "role": "viewer"}
    assert await ann.error_code(403, "POST", f"/share/{folder['id']}/users", lower) == "ROLE_MISSING"
    await studio.teacher.call("PUT", f"{path}/bob", {"role": "viewer"})
    await ann.call("DELETE", f"{path}/bob")
    await ann.call("DELETE", f"{path}/pupil")


async def test_editor_cannot_share(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    await studio.teacher.share(node, "pupil", "editor")
    await studio.teacher.share(node, "other", "viewer")
    path, body = f"/share/{node['id']}/users", {"user_id": "friend", "role": "viewer"}
    assert await studio.pupil.error_code(403, "POST", path, body) == "ROLE_MISSING"
    assert await studio.pupil.error_code(403, "PUT", f"{path}/other", {"role": "editor"}) == "ROLE_MISSING"
    assert await studio.pupil.error_code(403, "DELETE", f"{path}/other") == "ROLE_MISSING"
    assert await studio.pupil.error_code(403, "GET", f"/share/{node['id']}") == "ROLE_MISSING"


async def test_users_may_leave_unless_they_would_get_a_higher_role(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    await studio.teacher.share(root, "pupil", "editor")
    await studio.teacher.share(folder, "pupil", "viewer")
    lower = f"/share/{folder['id']}/users/pupil"
    assert await studio.pupil.error_code(422, "DELETE", lower) == "GRANT_REFUSED"
    await studio.pupil.call("DELETE", f"/share/{root['id']}/users/pupil")
    await studio.pupil.call("DELETE", lower)
    assert await studio.pupil.error_code(404, "GET", f"/nodes/{folder['id']}") == "NODE_NOT_FOUND"
    assert await studio.pupil.error_code(404, "DELETE", lower) == "NODE_NOT_FOUND"


async def test_list_for_admins_has_the_effective_grants_and_no_secrets(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    folder = await studio.teacher.node("folder", parent=root)
    for name in ("ann", "bob", "cec"):
        await studio.teacher.share(root, name, "viewer")
    await studio.teacher.share(folder, "bob", "editor")
    made = [await studio.teacher.link(one, "viewer", password="open sesame") for one in (root, folder)]
    first = await studio.teacher.send("GET", f"/share/{folder['id']}?limit=2")
    page = first.json()
    counts = [(one["user_id"], one["role"], one["node_id"]) for one in page["grants"]]
    assert counts == [("ann", "viewer", root["id"]), ("bob", "editor", folder["id"])]
    assert [one["id"] for one in page["links"]] == [one["id"] for one in made]
    assert not any(one["token"] in first.text for one in made)
    assert (page["owner_id"], page["visibility"]) == ("teacher", "shared")
    rest = await studio.teacher.call("GET", f"/share/{folder['id']}?limit=2&cursor={page['next_cursor']}")
    assert ([one["user_id"] for one in rest["grants"]], rest["links"], rest["next_cursor"]) == (
        ["cec"],
        [],
        None,
    )


async def test_number_of_grants_of_a_node_is_limited(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "GRANTS_MAX", 2)
    node = await studio.teacher.node("workspace")
    for name in ("ann", "bob"):
        await studio.teacher.share(node, name, "viewer")
    body = {"user_id": "cec", "role": "viewer"}
    code = await studio.teacher.error_code(409, "POST", f"/share/{node['id']}/users", body)
    assert code == "SHARE_LIMIT_REACHED"


@pytest.mark.parametrize("user", ["https://id.example/u/1", "auth0|7", "Zoë ☕", "a b%2Fc", "x" * 255])
async def test_each_valid_token_subject_can_be_granted_and_revoked(studio: Studio, user: str) -> None:
    node = await studio.teacher.node("workspace")
    made = await studio.teacher.send(
        "POST", f"/share/{node['id']}/users", {"user_id": user, "role": "viewer"}
    )
    place = made.headers["location"].removeprefix("/api/v1")
    assert (await studio.teacher.call("PUT", place, {"role": "editor"}))["user_id"] == user
    await studio.person(user).node("folder", parent=node)
    await studio.teacher.call("DELETE", place)


@pytest.mark.parametrize("user", [".", ".."])
async def test_user_id_that_clients_normalise_in_a_path_is_refused(studio: Studio, user: str) -> None:
    node = await studio.teacher.node("workspace")
    body = {"user_id": user, "role": "viewer"}
    assert (
        await studio.teacher.error_code(422, "POST", f"/share/{node['id']}/users", body) == "VALIDATION_ERROR"
    )


@pytest.mark.parametrize(("user", "status"), [("%00", 404), ("", 404), ("x" * 256, 422)])
async def test_user_id_that_no_token_can_have_has_no_grant(studio: Studio, user: str, status: int) -> None:
    node = await studio.teacher.node("workspace")
    await studio.teacher.error_code(status, "DELETE", f"/share/{node['id']}/users/{user}")
    body = {"user_id": "\x1b", "role": "viewer"}
    assert (
        await studio.teacher.error_code(422, "POST", f"/share/{node['id']}/users", body) == "VALIDATION_ERROR"
    )


async def test_private_node_suspends_grants_and_links_and_keeps_them(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    study = await studio.teacher.node("study", parent=root)
    await studio.teacher.share(root, "pupil", "admin")
    guest = await studio.anonymous.open_link(await studio.teacher.link(root, "viewer"))
    path = f"/nodes/{study['id']}"
    private = await studio.teacher.call("PATCH", path, {"visibility": "private"}, match=1)
    for person in (studio.pupil, guest):
        assert await person.error_code(404, "GET", path) == "NODE_NOT_FOUND"
        await person.call("GET", f"/nodes/{root['id']}")
    await studio.teacher.call("PATCH", path, {"visibility": None}, match=private["version"])
    for person in (studio.pupil, guest):
        await person.call("GET", path)


async def test_node_below_a_private_node_can_be_shared(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", visibility="private")
    study = await studio.teacher.node("study", parent=root, visibility="shared")
    await studio.teacher.share(root, "pupil", "viewer")
    assert await studio.pupil.error_code(404, "GET", f"/nodes/{root['id']}") == "NODE_NOT_FOUND"
    assert (await studio.pupil.call("GET", f"/nodes/{study['id']}"))["path"] == []


async def test_trashed_public_node_gets_the_response_of_a_missing_one(studio: Studio) -> None:
    node = await studio.teacher.node("workspace", visibility="public")
    await studio.anonymous.call("GET", f"/nodes/{node['id']}")
    await studio.teacher.call("DELETE", f"/nodes/{node['id']}", match=1)
    for gone in (node["id"], str(uuid4())):
        assert await studio.anonymous.error_code(401, "GET", f"/nodes/{gone}") == "TOKEN_MISSING"
        assert await studio.stranger.error_code(404, "GET", f"/nodes/{gone}") == "NODE_NOT_FOUND"


async def test_invalid_cursor_of_grants_is_refused(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    for part in ('["\\u0000"]', '["a", "b"]', "[1]", "{}"):
        cursor = b64encode(part.encode()).decode()
        path = f"/share/{node['id']}?cursor={cursor}"
        assert await studio.teacher.error_code(422, "GET", path) == "VALIDATION_ERROR"
    for moment in ("0001-01-01T00:00:00+14:00", "x"):
        cursor = b64encode(f'["{moment}", "{node["id"]}"]'.encode()).decode()
        assert await studio.teacher.error_code(422, "GET", f"/shared-with-me?cursor={cursor}")


async def test_shared_with_me_lists_granted_nodes(studio: Studio) -> None:
    roots = [await studio.teacher.node("workspace", f"Club {number}") for number in range(4)]
    for root, role in zip(roots, ("viewer", "editor", "viewer", "viewer"), strict=True):
        await studio.teacher.share(root, "pupil", role)
    await studio.teacher.call("PATCH", f"/nodes/{roots[3]['id']}", {"visibility": "private"}, match=1)
    inner = await studio.teacher.node("study", "Endgames", roots[0], visibility="public")
    await studio.person("ann").node("workspace", visibility="public")
    await studio.teacher.share(inner, "pupil", "commenter")
    page = await studio.pupil.call("GET", "/shared-with-me?limit=2")
    rest = await studio.pupil.call("GET", f"/shared-with-me?limit=2&cursor={page['next_cursor']}")
    seen = [(one["title"], one["role"], one["visibility"]) for one in page["items"] + rest["items"]]
    assert seen == [
        ("Endgames", "commenter", "public"),
        ("Club 2", "viewer", "shared"),
        ("Club 1", "editor", "shared"),
        ("Club 0", "viewer", "shared"),
    ]
    assert (page["items"][0]["shared_by"], rest["next_cursor"]) == ("teacher", None)
    assert (await studio.teacher.call("GET", "/shared-with-me"))["items"] == []
    assert await studio.anonymous.error_code(401, "GET", "/shared-with-me") == "TOKEN_MISSING"


async def test_shared_with_me_omits_trashed_and_own_nodes(studio: Studio) -> None:
    root, mine = await studio.teacher.node("workspace"), await studio.pupil.node("workspace")
    given, trashed = [await studio.teacher.node("folder", parent=root) for _ in range(2)]
    for node in (given, trashed):
        await studio.teacher.share(node, "pupil", "viewer")
    await studio.pupil.share(mine, "teacher", "editor")
    await studio.teacher.call("DELETE", f"/nodes/{trashed['id']}", match=1)
    listed = (await studio.pupil.call("GET", "/shared-with-me"))["items"]
    assert [one["id"] for one in listed] == [given["id"]]
    await studio.teacher.call("POST", f"/nodes/{given['id']}/move", {"parent_id": mine["id"]}, match=1)
    assert (await studio.pupil.call("GET", "/shared-with-me"))["items"] == []
    # The grant still exists, so the user can revoke it.
    await studio.pupil.call("DELETE", f"/share/{given['id']}/users/pupil")


@pytest.mark.guarantee("G81")
async def test_sharing_of_a_node_is_not_found_by_strangers(studio: Studio) -> None:
    node, missing = await studio.teacher.node("workspace"), str(uuid4())
    link = await studio.teacher.link(node, "viewer")
    body: dict[str, Any] = {"user_id": "eve", "role": "viewer"}
    asked = [
        ("GET", "/share/{}", None),
        ("POST", "/share/{}/users", body),
        ("PUT", "/share/{}/users/eve", {"role": "viewer"}),
        ("DELETE", "/share/{}/users/eve", None),
        ("DELETE", "/share/{}/users/stranger", None),
        ("POST", "/share/{}/links", {"role": "viewer"}),
    ]
    for method, path, content in asked:
        theirs = await studio.stranger.send(method, path.format(node["id"]), content)
        other = await studio.stranger.send(method, path.format(missing), content)
        assert theirs.status_code == other.status_code == 404
        assert theirs.json()["message"] == other.json()["message"]
    theirs = await studio.stranger.send("DELETE", f"/share/links/{link['id']}")
    other = await studio.stranger.send("DELETE", f"/share/links/{missing}")
    assert (theirs.status_code, theirs.json()["message"]) == (404, other.json()["message"])
