"""The activity of a node: its events, newest first."""

from functools import partial
from uuid import uuid4

from backend.workspace.http import encode_cursor
from relaybox.events import erase

from tests.fixtures.club import Club


async def test_activity_lists_only_the_nodes_own_events_newest_first(club: Club) -> None:
    thread = await club.thread()
    reply = await club.reply(thread)
    await club.other.call("PUT", f"/replies/{reply['id']}/reactions/♟")
    await club.owner.node("folder", parent=club.root)
    path = f"/nodes/{club.study}/activity"
    seen, page = [], await club.viewer.call("GET", f"{path}?limit=2")
    while page["next_cursor"]:
        seen += page["items"]
        page = await club.viewer.call("GET", f"{path}?limit=2&cursor={page['next_cursor']}")
    seen += page["items"]
    told = [(one["version"], one["actor"], one["summary"], one["target"]["id"]) for one in seen]
    assert told == [
        (5, "other", "reacted with ♟", reply["id"]),
        (4, "commenter", "replied", reply["id"]),
        (3, "commenter", "began a question", thread["id"]),
        (2, "teacher", "added a chapter", str(club.chapter.id)),
        (1, "teacher", "made this study", club.study),
    ]


async def test_activity_contains_no_text_of_discussions(club: Club) -> None:
    thread = await club.thread(title="a private title", body="a private word")
    await club.reply(thread, body="a private answer")
    answer = await club.owner.send("GET", f"/nodes/{club.study}/activity")
    assert answer.is_success
    assert "private" not in answer.text


async def test_activity_does_not_show_text_that_was_changed_later(club: Club) -> None:
    study, chapter = f"/nodes/{club.study}", f"/studies/{club.study}/chapters/{club.chapter.id}"
    version = (await club.owner.call("GET", study))["version"]
    for words in ("a secret", "another"):
        version = (await club.owner.call("PATCH", study, {"description": words}, match=version))["version"]
        await club.owner.call("PUT", f"{chapter}/moves/e2e4/annotation", {"text": words}, match="*")
    answer = await club.viewer.send("GET", f"{study}/activity")
    assert "secret" not in answer.text
    told = [one["summary"] for one in answer.json()["items"][:2]]
    assert told == ["annotated a move", "changed description"]


async def test_only_admins_see_grants_in_the_activity(club: Club) -> None:
    path = f"/nodes/{club.root['id']}/activity"
    assert '"pupil"' not in (await club.viewer.send("GET", path)).text
    await club.owner.share(club.root, "pupil", "viewer")
    assert '"pupil"' not in (await club.viewer.send("GET", path)).text
    [latest, *_] = (await club.admin.call("GET", path))["items"]
    assert (latest["type"], latest["target"]) == ("acl.shared", {"type": "SHARE", "id": "pupil"})


async def test_activity_of_a_hidden_node_is_not_found(club: Club) -> None:
    for node_id in (club.study, uuid4(), "no-id"):
        path = f"/nodes/{node_id}/activity"
        assert await club.stranger.error_code(404, "GET", path) == "NODE_NOT_FOUND"
        assert await club.anonymous.error_code(401, "GET", path) == "TOKEN_MISSING"
    await club.set_visibility("public")
    assert (await club.anonymous.call("GET", f"/nodes/{club.study}/activity"))["items"]
    await club.trash(club.root["id"])
    assert await club.owner.error_code(404, "GET", f"/nodes/{club.study}/activity") == "NODE_NOT_FOUND"


async def test_erased_events_are_marked_in_the_activity(club: Club) -> None:
    await club.thread(body="a private word")
    forget = partial(
        erase,
        aggregate_type="WORKSPACE_NODE",
        aggregate_ids=[club.study],
        actor="operator",
        reason="asked for",
    )
    await club.studio.backbone.database.run_in_transaction(forget, isolation="READ COMMITTED")
    items = (await club.viewer.call("GET", f"/nodes/{club.study}/activity"))["items"]
    assert {(one["erased"], one["summary"]) for one in items} == {(True, "made a change that was erased")}
    assert [one["actor"] for one in items] == ["commenter", "teacher", "teacher"]


async def test_invalid_cursor_of_activity_is_refused(club: Club) -> None:
    for place in [(2**31,), ("1",), (1, 2)]:
        path = f"/nodes/{club.study}/activity?cursor={encode_cursor(*place)}"
        assert await club.viewer.error_code(422, "GET", path) == "VALIDATION_ERROR"
