"""Replies: nested, edited with a history, deleted without breaking the thread; reactions."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from backend.rebuilding import rebuild
from backend.workspace import NodeProjection
from backend.workspace.discussions import _replies as replies
from relaybox.db import Database

from tests.fixtures.club import Club


async def shown(club: Club, thread: Any) -> Any:
    """Return the replies as (body, [replies to it])."""

    def tree(views: list[Any]) -> list[Any]:
        return [(one["body"], tree(one["replies"])) for one in views]

    return tree((await club.viewer.call("GET", f"/discussions/{thread['id']}"))["replies"])


async def test_reply_is_written_with_its_event(club: Club) -> None:
    thread = await club.thread()
    made = await club.other.send("POST", f"/discussions/{thread['id']}/replies", {"body": "See @anna"})
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    reply = made.json()
    assert (reply["depth"], reply["author_id"], reply["mentions"]) == (1, "other", ["anna"])
    event = (await club.studio.stream(club.study))[-1]
    assert (event.type, event.metadata["user_id"]) == ("discussion.reply.added", "other")
    assert event.payload["thread_id"] == thread["id"]


async def test_replies_nest_at_most_five_deep(club: Club) -> None:
    thread = await club.thread()
    reply = await club.reply(thread)
    for depth in range(2, 6):
        reply = await club.reply(thread, parent_id=reply["id"])
        assert reply["depth"] == depth
    path, body = f"/discussions/{thread['id']}/replies", {"body": "x", "parent_id": reply["id"]}
    assert await club.commenter.error_code(422, "POST", path, body) == "REPLY_TOO_DEEP"


async def test_reply_must_be_to_a_reply_of_the_same_thread(club: Club) -> None:
    thread, other = await club.thread(), await club.thread()
    elsewhere, gone = await club.reply(other), await club.reply(thread)
    await club.reply(thread, parent_id=gone["id"])
    await club.commenter.call("DELETE", f"/replies/{gone['id']}")
    path = f"/discussions/{thread['id']}/replies"
    for parent_id in (elsewhere["id"], gone["id"], str(uuid4())):
        body = {"body": "x", "parent_id": parent_id}
        assert await club.commenter.error_code(404, "POST", path, body) == "NOT_FOUND_IN_NODE"


async def test_number_of_replies_of_a_thread_is_limited(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "REPLIES_MAX", 2)
    thread = await club.thread()
    first = await club.reply(thread)
    await club.reply(thread, parent_id=first["id"])
    await club.commenter.call("DELETE", f"/replies/{first['id']}")
    path = f"/discussions/{thread['id']}/replies"
    assert await club.commenter.error_code(422, "POST", path, {"body": "x"}) == "DISCUSSION_FULL"


async def test_edit_keeps_the_former_body_in_the_history(club: Club) -> None:
    reply = await club.reply(await club.thread(), body="first")
    path = f"/replies/{reply['id']}"
    second = await club.commenter.call("PATCH", path, {"body": "second @bob"}, match=1)
    assert (second["version"], second["mentions"], second["edited_by"]) == (2, ["bob"], "commenter")
    third = await club.admin.call("PATCH", path, {"body": "third"}, match=2)
    assert (third["author_id"], third["edited_by"], third["mentions"]) == ("commenter", "admin", [])
    answer = await club.viewer.send("GET", f"{path}/history")
    earlier = [(one["body"], one["written_by"], one["written_at"]) for one in answer.json()["items"]]
    assert earlier == [
        ("first", "commenter", reply["created_at"]),
        ("second @bob", "commenter", second["changed_at"]),
    ]
    assert answer.headers["etag"] == '"3"'


async def test_edit_with_an_equal_body_writes_nothing(club: Club) -> None:
    reply = await club.reply(await club.thread(), body="same")
    answer = await club.commenter.send("PATCH", f"/replies/{reply['id']}", {"body": "same"}, match=1)
    assert (answer.status_code, answer.headers["etag"]) == (200, '"1"')
    assert "discussion.reply.edited" not in await club.types()


async def test_edit_of_a_reply_requires_its_version(club: Club) -> None:
    reply = await club.reply(await club.thread())
    path = f"/replies/{reply['id']}"
    assert await club.commenter.error_code(428, "PATCH", path, {"body": "x"}) == "IF_MATCH_MISSING"
    stale = await club.commenter.send("PATCH", path, {"body": "x"}, match=2)
    assert (stale.status_code, stale.json()["current_version"]) == (412, 1)


async def test_one_of_two_concurrent_edits_is_stale(club: Club) -> None:
    reply = await club.reply(await club.thread())
    path = f"/replies/{reply['id']}"
    answers = await asyncio.gather(
        *(club.commenter.send("PATCH", path, {"body": str(number)}, match=1) for number in range(2))
    )
    assert sorted(one.status_code for one in answers) == [200, 412]
    assert (await club.types()).count("discussion.reply.edited") == 1


async def test_reply_is_changed_by_its_author_or_an_admin(club: Club) -> None:
    reply = await club.reply(await club.thread())
    path = f"/replies/{reply['id']}"
    for person in (club.editor, club.other, club.viewer):
        assert await person.error_code(403, "PATCH", path, {"body": "x"}, match=1) == "ROLE_MISSING"
        assert await person.error_code(403, "DELETE", path) == "ROLE_MISSING"
    await club.admin.call("DELETE", path)
    assert await club.admin.error_code(404, "DELETE", path) == "NOT_FOUND_IN_NODE"


async def test_author_who_is_now_a_viewer_cannot_change_the_reply(club: Club) -> None:
    reply = await club.reply(await club.thread(club.other), club.other)
    await club.owner.share(club.chapter.study, "other", "viewer")
    path = f"/replies/{reply['id']}"
    assert await club.other.error_code(403, "PATCH", path, {"body": "x"}, match=1) == "ROLE_MISSING"


async def test_deleted_reply_stays_until_its_last_reply_is_deleted(club: Club, database: Database) -> None:
    thread = await club.thread()
    one = await club.reply(thread, body="1")
    two = await club.reply(thread, body="1.1", parent_id=one["id"])
    three = await club.reply(thread, body="1.1.1", parent_id=two["id"])
    beside = await club.reply(thread, body="1.2", parent_id=one["id"])
    await club.commenter.call("PUT", f"/replies/{one['id']}/reactions/👍")
    for reply in (one, two):
        await club.commenter.call("DELETE", f"/replies/{reply['id']}")
    assert await shown(club, thread) == [("", [("", [("1.1.1", [])]), ("1.2", [])])]
    detail = await club.viewer.call("GET", f"/discussions/{thread['id']}")
    [place] = detail["replies"]
    assert (detail["replies_count"], place["author_id"], place["reactions"]) == (2, None, {})
    await club.commenter.call("DELETE", f"/replies/{three['id']}")
    assert await shown(club, thread) == [("", [("1.2", [])])]
    await club.commenter.call("DELETE", f"/replies/{beside['id']}")
    assert await shown(club, thread) == []


async def test_deleted_reply_has_no_edit_no_reaction_and_no_history(club: Club) -> None:
    thread = await club.thread()
    reply = await club.reply(thread)
    await club.reply(thread, parent_id=reply["id"])
    path = f"/replies/{reply['id']}"
    await club.commenter.call("PATCH", path, {"body": "edited"}, match=1)
    await club.commenter.call("DELETE", path)
    assert await club.commenter.error_code(404, "PATCH", path, {"body": "x"}, match=3) == "NOT_FOUND_IN_NODE"
    assert await club.commenter.error_code(404, "PUT", f"{path}/reactions/👍") == "NOT_FOUND_IN_NODE"
    assert await club.commenter.error_code(404, "GET", f"{path}/history") == "NOT_FOUND_IN_NODE"


async def reactions(club: Club, reply: Any) -> Any:
    detail = await club.viewer.call("GET", f"/discussions/{reply['thread_id']}")
    return detail["replies"][0]["reactions"]


async def test_repeated_reaction_writes_nothing(club: Club) -> None:
    reply = await club.reply(await club.thread())
    path = f"/replies/{reply['id']}/reactions/👍"
    for _ in range(2):
        answer = await club.other.send("PUT", path)
        assert (answer.status_code, answer.content) == (204, b"")
    await club.commenter.call("PUT", path)
    assert await reactions(club, reply) == {"👍": ["other", "commenter"]}
    assert (await club.types()).count("discussion.reaction.added") == 2
    for _ in range(2):
        await club.other.call("DELETE", path)
    assert await reactions(club, reply) == {"👍": ["commenter"]}
    await club.commenter.call("DELETE", path)
    assert await reactions(club, reply) == {}
    assert (await club.types()).count("discussion.reaction.removed") == 2


async def test_reaction_does_not_change_the_version_of_a_reply(club: Club) -> None:
    reply = await club.reply(await club.thread())
    await club.other.call("PUT", f"/replies/{reply['id']}/reactions/👍")
    await club.commenter.call("PATCH", f"/replies/{reply['id']}", {"body": "x"}, match=1)
    assert await reactions(club, reply) == {"👍": ["other"]}


async def test_two_concurrent_reactions_are_both_stored(club: Club) -> None:
    reply = await club.reply(await club.thread())
    path = f"/replies/{reply['id']}/reactions/👍"
    await asyncio.gather(club.other.call("PUT", path), club.commenter.call("PUT", path))
    assert sorted((await reactions(club, reply))["👍"]) == ["commenter", "other"]


async def test_reaction_is_one_emoji_and_requires_a_commenter(club: Club) -> None:
    reply = await club.reply(await club.thread())
    path = f"/replies/{reply['id']}/reactions"
    assert await club.other.error_code(422, "PUT", f"{path}/like") == "EMOJI_INVALID"
    assert await club.other.error_code(422, "DELETE", f"{path}/like") == "EMOJI_INVALID"
    assert await club.viewer.error_code(403, "PUT", f"{path}/👍") == "ROLE_MISSING"


async def test_reply_has_at_most_50_different_emoji(club: Club, monkeypatch: pytest.MonkeyPatch) -> None:
    reply = await club.reply(await club.thread())
    path = f"/replies/{reply['id']}/reactions"
    for number in range(50):
        await club.other.call("PUT", f"{path}/{chr(0x1F600 + number)}")
    assert await club.other.error_code(422, "PUT", f"{path}/♟") == "REACTIONS_FULL"
    await club.commenter.call("PUT", f"{path}/{chr(0x1F600)}")
    monkeypatch.setattr(replies, "_REACTIONS_MAX", 51)
    assert await club.editor.error_code(422, "PUT", f"{path}/{chr(0x1F600)}") == "REACTIONS_FULL"


async def test_reply_racing_a_thread_deletion_is_deleted_or_refused(club: Club, database: Database) -> None:
    for _ in range(5):
        thread = await club.thread()
        path = f"/discussions/{thread['id']}"
        answers = await asyncio.gather(
            *(club.other.send("POST", f"{path}/replies", {"body": "late"}) for _ in range(3)),
            club.commenter.send("DELETE", path),
        )
        assert answers[-1].status_code == 204
        assert {one.status_code for one in answers[:-1]} <= {201, 404}
    async with database.connection() as connection:
        assert await connection.fetch("SELECT id FROM workspace_replies") == []


async def test_discussions_are_rebuilt_from_their_events(club: Club, database: Database) -> None:
    thread = await club.thread(club.editor, chapter_id=str(club.chapter.id), move_path="e2e4")
    path = f"/discussions/{thread['id']}"
    await club.editor.call("PATCH", path, {"title": "T", "resolved": True, "pinned": True}, match=1)
    one = await club.reply(thread)
    two = await club.reply(thread, parent_id=one["id"])
    three = await club.reply(thread, club.other, parent_id=two["id"])
    await club.commenter.call("PATCH", f"/replies/{one['id']}", {"body": "edited"}, match=1)
    await club.other.call("PUT", f"/replies/{one['id']}/reactions/👍")
    await club.commenter.call("DELETE", f"/replies/{two['id']}")
    await club.other.call("DELETE", f"/replies/{three['id']}")
    gone = await club.thread()
    await club.reply(gone)
    await club.commenter.call("DELETE", f"/discussions/{gone['id']}")
    differences: list[Any] = []
    await rebuild(database, NodeProjection(), write=False, on_difference=differences.append)
    assert differences == []
