"""The id of a parent that the user may not read is in no response."""

from typing import Any

from tests.fixtures.studio import Person, Studio


async def _tree(studio: Studio) -> dict[str, Any]:
    """Create a folder that the pupil administers, below a node that the pupil may not read."""
    root = await studio.teacher.node("workspace", "Club")
    secret = await studio.teacher.node("folder", "secret", root)
    folder = await studio.teacher.node("folder", "shared", secret)
    study = await studio.teacher.node("study", "inside", folder)
    await studio.teacher.share(folder, "pupil", "admin")
    await studio.teacher.share(secret, "ada", "viewer")
    await studio.teacher.link(secret, "viewer")
    return {"root": root, "secret": secret, "folder": folder, "study": study}


async def _read(person: Person, folder: Any, study: Any) -> str:
    """Return all responses that a reader of the folder gets, as one text."""
    paths = [
        f"/nodes/{folder['id']}",
        f"/nodes/{folder['id']}/children",
        f"/nodes/tree?root_id={folder['id']}",
        f"/nodes/{folder['id']}/activity",
        f"/nodes/{study['id']}",
        f"/studies/{study['id']}",
        f"/nodes/{study['id']}/activity",
        f"/share/{folder['id']}",
    ]
    if person.name is not None:
        paths += ["/shared-with-me", "/search?q=inside", "/trash"]
    return "\n".join([(await person.send("GET", path)).text for path in paths])


async def test_grantee_does_not_get_the_id_of_a_hidden_parent(studio: Studio) -> None:
    tree = await _tree(studio)
    folder, study = tree["folder"], tree["study"]
    text = await _read(studio.pupil, folder, study)
    assert study["id"] in text
    assert tree["secret"]["id"] not in text
    assert tree["root"]["id"] not in text
    shown = await studio.pupil.call("GET", f"/nodes/{folder['id']}")
    assert (shown["parent_id"], shown["path"]) == (None, [])
    [item] = (await studio.pupil.call("GET", "/shared-with-me"))["items"]
    assert item["parent_id"] is None
    top, below = (await studio.pupil.call("GET", f"/nodes/tree?root_id={folder['id']}"))["items"]
    assert (top["parent_id"], below["parent_id"]) == (None, folder["id"])
    changed = await studio.pupil.call("PATCH", f"/nodes/{folder['id']}", {"title": "new"}, match=1)
    assert changed["parent_id"] is None


async def test_link_does_not_show_the_id_of_a_hidden_parent(studio: Studio) -> None:
    tree = await _tree(studio)
    for person in studio.anonymous, studio.stranger:
        guest = Person(
            studio.http,
            person.name,
            (await person.open_link(await studio.teacher.link(tree["folder"], "viewer"))).share_token,
        )
        text = await _read(guest, tree["folder"], tree["study"])
        assert tree["study"]["id"] in text
        assert tree["secret"]["id"] not in text


async def test_bin_does_not_show_the_id_of_a_hidden_parent(studio: Studio) -> None:
    tree = await _tree(studio)
    folder = f"/nodes/{tree['folder']['id']}"
    await studio.pupil.call("DELETE", folder, match=1)
    [item] = (await studio.pupil.call("GET", "/trash"))["items"]
    assert item["former_parent"] == {"id": None, "title": None}
    [item] = (await studio.teacher.call("GET", "/trash"))["items"]
    assert item["former_parent"] == {"id": tree["secret"]["id"], "title": "secret"}
    back = await studio.pupil.call("POST", f"{folder}/restore")
    assert (back["parent_id"], back["restored_to"], back["fallback"]) == (None, None, False)
    shown = await studio.teacher.call("GET", folder)
    assert shown["parent_id"] == tree["secret"]["id"]


async def test_readers_of_the_parent_get_its_id(studio: Studio) -> None:
    tree = await _tree(studio)
    folder, secret = tree["folder"], tree["secret"]
    await studio.teacher.share(folder, "ada", "editor")
    ada = studio.person("ada")
    shown = await ada.call("GET", f"/nodes/{folder['id']}")
    assert (shown["parent_id"], [one["id"] for one in shown["path"]]) == (secret["id"], [secret["id"]])
    items = {one["id"]: one for one in (await ada.call("GET", "/shared-with-me"))["items"]}
    assert (items[folder["id"]]["parent_id"], items[secret["id"]]["parent_id"]) == (secret["id"], None)
    await studio.teacher.call("PATCH", f"/nodes/{secret['id']}", {"visibility": "private"}, match=1)
    assert await ada.error_code(404, "GET", f"/nodes/{folder['id']}") == "NODE_NOT_FOUND"
    await studio.teacher.call("PATCH", f"/nodes/{folder['id']}", {"visibility": "shared"}, match=1)
    assert (await ada.call("GET", f"/nodes/{folder['id']}"))["parent_id"] is None
    items = (await ada.call("GET", "/shared-with-me"))["items"]
    assert [(one["id"], one["parent_id"]) for one in items] == [(folder["id"], None)]
