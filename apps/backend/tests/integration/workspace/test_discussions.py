"""Threads: create, list, read, change, resolve, pin and delete them, and the roles that this requires."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from backend.workspace.http import encode_cursor
from relaybox.db import Database

from tests.fixtures.club import Club
from tests.fixtures.studio import Studio


async def thread_of(club: Club, thread: Any, person: Any = None) -> Any:
    return await (person or club.viewer).call("GET", f"/discussions/{thread['id']}")


async def bodies(club: Club, target_id: object, **query: object) -> list[str]:
    params = {"target_id": str(target_id), **{name: str(value) for name, value in query.items()}}
    page = await club.viewer.call("GET", "/discussions", params=params)
    return [one["body"] for one in page["items"]]


async def test_thread_is_created_with_its_event(club: Club) -> None:
    body = {"target": club.study, "kind": "suggestion", "title": "  A plan ", "body": "Ask @anna."}
    made = await club.commenter.send("POST", "/discussions", body)
    assert (made.status_code, made.headers["etag"]) == (201, '"1"')
    thread = made.json()
    assert made.headers["location"] == f"/api/v1/discussions/{thread['id']}"
    assert (thread["title"], thread["author_id"], thread["mentions"]) == ("A plan", "commenter", ["anna"])
    [event] = [one for one in await club.studio.stream(club.study) if one.type.startswith("discussion")]
    assert event.type == "discussion.thread.created"
    assert event.payload == {
        "thread_id": thread["id"],
        "kind": "suggestion",
        "title": "A plan",
        "body": "Ask @anna.",
        "mentions": ["anna"],
    }


async def test_thread_can_be_on_a_node_a_chapter_or_a_move(club: Club) -> None:
    chapter = str(club.chapter.id)
    on_move = await club.thread(chapter_id=chapter, move_path="e2e4.e7e5", body="move")
    assert (on_move["chapter_id"], on_move["move_path"]) == (chapter, "e2e4.e7e5")
    await club.thread(chapter_id=chapter, body="chapter")
    await club.thread(body="study")
    await club.thread(target=club.root["id"], body="root")
    assert await bodies(club, club.study) == ["study", "chapter", "move"]
    assert await bodies(club, chapter) == ["chapter", "move"]
    assert await bodies(club, club.root["id"]) == ["root"]


async def test_thread_on_a_missing_chapter_or_move_is_refused(club: Club, studio: Studio) -> None:
    body = {"target": club.study, "kind": "note", "body": "x", "chapter_id": str(uuid4())}
    assert await club.commenter.error_code(404, "POST", "/discussions", body) == "NOT_FOUND_IN_NODE"
    body["chapter_id"] = str(club.chapter.id)
    body["move_path"] = "e2e4.c7c5"
    assert await club.commenter.error_code(422, "POST", "/discussions", body) == "MOVE_NOT_FOUND"
    del body["chapter_id"]
    assert await club.commenter.error_code(422, "POST", "/discussions", body) == "VALIDATION_ERROR"
    elsewhere = {**body, "target": club.root["id"], "chapter_id": str(club.chapter.id), "move_path": "e2e4"}
    assert await club.commenter.error_code(404, "POST", "/discussions", elsewhere) == "NOT_FOUND_IN_NODE"
    assert await club.types() == []


@pytest.mark.parametrize(
    "fields",
    [{"body": ""}, {"body": " \n"}, {"body": "x" * 10_001}, {"title": "x" * 201}, {"kind": "rant"}, {"x": 1}],
)
async def test_invalid_thread_is_refused(club: Club, fields: dict[str, Any]) -> None:
    body = {"target": club.study, "kind": "note", "body": "x", **fields}
    assert await club.commenter.error_code(422, "POST", "/discussions", body) == "VALIDATION_ERROR"


async def test_body_of_10_000_characters_of_any_script_is_accepted(club: Club) -> None:
    thread = await club.thread(body="棋" * 10_000)
    assert (await thread_of(club, thread))["body"] == "棋" * 10_000


async def test_threads_are_listed_pinned_first_then_newest(club: Club) -> None:
    threads = [await club.thread(body=str(number)) for number in range(5)]
    for one in (threads[1], threads[3]):
        await club.editor.call("PATCH", f"/discussions/{one['id']}", {"pinned": True}, match=1)
    seen: list[str] = []
    query = f"/discussions?target_id={club.study}&limit=2"
    page = await club.viewer.call("GET", query)
    while page["next_cursor"]:
        seen += [one["body"] for one in page["items"]]
        page = await club.viewer.call("GET", f"{query}&cursor={page['next_cursor']}")
    seen += [one["body"] for one in page["items"]]
    assert seen == ["3", "1", "4", "2", "0"]


async def test_resolved_threads_are_listed_separately(club: Club) -> None:
    one = await club.thread(body="done")
    await club.thread(body="open")
    path = f"/discussions/{one['id']}"
    await club.editor.call("PATCH", path, {"resolved": True}, match=1)
    assert await bodies(club, club.study, resolved=True) == ["done"]
    assert await bodies(club, club.study, resolved=False) == ["open"]
    assert await bodies(club, club.study) == ["open", "done"]


async def test_invalid_cursor_of_threads_is_refused(club: Club) -> None:
    for place in [(1, "2026-01-01T00:00:00Z", uuid4()), (True, "9999-12-31T23:59:59-12:00", uuid4())]:
        path = f"/discussions?target_id={club.study}&cursor={encode_cursor(*place)}"
        assert await club.viewer.error_code(422, "GET", path) == "VALIDATION_ERROR"


async def test_thread_is_read_with_nested_and_counted_replies(club: Club) -> None:
    thread = await club.thread()
    first = await club.reply(thread, body="1")
    await club.reply(thread, body="2")
    await club.reply(thread, body="1.1", parent_id=first["id"])
    answer = await club.viewer.send("GET", f"/discussions/{thread['id']}")
    detail = answer.json()
    assert (answer.headers["etag"], detail["replies_count"]) == ('"1"', 3)
    tree = [(one["body"], [below["body"] for below in one["replies"]]) for one in detail["replies"]]
    assert tree == [("1", ["1.1"]), ("2", [])]
    [listed] = (await club.viewer.call("GET", f"/discussions?target_id={club.study}"))["items"]
    assert listed["replies_count"] == 3


async def test_each_kind_of_change_of_a_thread_is_a_separate_event(club: Club) -> None:
    thread = await club.thread(club.editor)
    path = f"/discussions/{thread['id']}"
    changes = {"title": "T", "body": "for @bob", "kind": "note", "resolved": True, "pinned": True}
    changed = await club.editor.call("PATCH", path, changes, match=1)
    assert (changed["title"], changed["body"], changed["kind"]) == ("T", "for @bob", "note")
    assert (changed["mentions"], changed["resolved_by"], changed["pinned"]) == (["bob"], "editor", True)
    assert changed["version"] == 4
    undone = await club.editor.send("PATCH", path, {"resolved": False, "pinned": False}, match=4)
    assert (undone.json()["resolved_at"], undone.json()["pinned"]) == (None, False)
    assert undone.headers["etag"] == '"6"'
    assert await club.types() == [
        "discussion.thread.created",
        "discussion.thread.updated",
        "discussion.thread.resolved",
        "discussion.thread.pinned",
        "discussion.thread.reopened",
        "discussion.thread.unpinned",
    ]


async def test_thread_update_without_change_writes_nothing(club: Club, database: Database) -> None:
    thread = await club.thread(club.editor, title="T")
    path, same = f"/discussions/{thread['id']}", {"title": "T", "resolved": False, "pinned": False}
    assert (await club.editor.call("PATCH", path, same, match=1))["version"] == 1
    assert await club.types() == ["discussion.thread.created"]


async def test_change_of_a_thread_requires_its_version(club: Club) -> None:
    thread = await club.thread()
    path, change = f"/discussions/{thread['id']}", {"body": "better"}
    assert await club.commenter.error_code(428, "PATCH", path, change) == "IF_MATCH_MISSING"
    await club.commenter.call("PATCH", path, change, match=1)
    stale = await club.commenter.send("PATCH", path, {"body": "late"}, match=1)
    assert (stale.status_code, stale.json()["current_version"]) == (412, 2)


async def test_text_is_changed_by_the_author_other_fields_by_an_editor(club: Club) -> None:
    thread = await club.thread()
    path = f"/discussions/{thread['id']}"
    for person in (club.editor, club.admin, club.owner):
        assert await person.error_code(403, "PATCH", path, {"body": "x"}, match=1) == "NOT_THE_AUTHOR"
    for change in ({"resolved": True}, {"pinned": True}):
        assert await club.commenter.error_code(403, "PATCH", path, change, match=1) == "ROLE_MISSING"
        assert await club.other.error_code(403, "PATCH", path, change, match=1) == "ROLE_MISSING"
    assert await club.other.error_code(403, "PATCH", path, {"title": "x"}, match=1) == "ROLE_MISSING"
    assert await club.viewer.error_code(403, "PATCH", path, {"title": "x"}, match=1) == "ROLE_MISSING"


async def test_author_or_editor_deletes_a_thread_with_its_replies(club: Club, database: Database) -> None:
    threads = [await club.thread() for _ in range(2)]
    for thread in threads:
        reply = await club.reply(thread)
        await club.reply(thread, club.other, parent_id=reply["id"])
        assert await club.other.error_code(403, "DELETE", f"/discussions/{thread['id']}") == "ROLE_MISSING"
    await club.commenter.call("DELETE", f"/discussions/{threads[0]['id']}")
    await club.editor.call("DELETE", f"/discussions/{threads[1]['id']}")
    assert (await club.types())[-2:] == ["discussion.thread.deleted"] * 2
    assert await club.viewer.error_code(404, "GET", f"/discussions/{threads[0]['id']}") == "NOT_FOUND_IN_NODE"
    async with database.connection() as connection:
        left = "SELECT id FROM workspace_threads UNION ALL SELECT id FROM workspace_replies"
        assert await connection.fetch(left) == []


async def test_viewer_cannot_create_a_thread(club: Club) -> None:
    body = {"target": club.study, "kind": "note", "body": "x"}
    assert await club.viewer.error_code(403, "POST", "/discussions", body) == "ROLE_MISSING"
    assert await club.anonymous.error_code(401, "POST", "/discussions", body) == "TOKEN_MISSING"


async def test_anonymous_requester_reads_discussions_of_a_public_node(club: Club) -> None:
    thread = await club.thread()
    await club.set_visibility("public")
    assert (await thread_of(club, thread, club.anonymous))["id"] == thread["id"]
    page = await club.anonymous.call("GET", f"/discussions?target_id={club.study}")
    assert [one["id"] for one in page["items"]] == [thread["id"]]
    body = {"target": club.study, "kind": "note", "body": "x"}
    assert await club.stranger.error_code(403, "POST", "/discussions", body) == "ROLE_MISSING"


async def test_commenter_link_lets_a_user_with_a_token_write(club: Club) -> None:
    link = await club.owner.link(club.chapter.study, "commenter")
    guest = await club.stranger.open_link(link)
    thread = await club.thread(guest)
    reply = await club.reply(thread, guest)
    await guest.call("PUT", f"/replies/{reply['id']}/reactions/♟")
    assert (await thread_of(club, thread, await club.anonymous.open_link(link)))["author_id"] == "stranger"
    await club.owner.call("DELETE", f"/share/links/{link['id']}")
    assert await guest.error_code(404, "GET", f"/discussions/{thread['id']}") == "NOT_FOUND_IN_NODE"


@pytest.mark.guarantee("G81")
async def test_thread_of_a_hidden_node_gets_the_response_of_a_missing_one(club: Club) -> None:
    thread = await club.thread()
    reply = await club.reply(thread)
    for method, path, body in [
        ("GET", "/discussions/{}", None),
        ("PATCH", "/discussions/{}", {"title": "x"}),
        ("DELETE", "/discussions/{}", None),
        ("POST", "/discussions/{}/replies", {"body": "x"}),
        ("PATCH", "/replies/{}", {"body": "x"}),
        ("DELETE", "/replies/{}", None),
        ("GET", "/replies/{}/history", None),
        ("PUT", "/replies/{}/reactions/👍", None),
        ("DELETE", "/replies/{}/reactions/👍", None),
    ]:
        there = (reply if "replies/{" in path else thread)["id"]
        theirs = await club.stranger.send(method, path.format(there), body)
        missing = await club.stranger.send(method, path.format(uuid4()), body)
        nothing = await club.stranger.send(method, path.format("no-id"), body)
        assert theirs.status_code == missing.status_code == nothing.status_code == 404, path
        thing = "reply" if path.startswith("/replies") else "thread"
        assert missing.json()["message"] == f"there is no such {thing}; check the id"
        bodies = [one.json() | {"request_id": ""} for one in (theirs, missing, nothing)]
        assert bodies[0] == bodies[1] == bodies[2]
        for one in (there, uuid4(), "no-id"):
            assert await club.anonymous.error_code(401, method, path.format(one), body) == "TOKEN_MISSING"
    for target in (club.study, club.chapter.id, uuid4()):
        path = f"/discussions?target_id={target}"
        assert await club.stranger.error_code(404, "GET", path) == "NODE_NOT_FOUND"
        assert await club.anonymous.error_code(401, "GET", path) == "TOKEN_MISSING"


async def test_discussions_of_a_trashed_node_are_not_found(club: Club) -> None:
    thread = await club.thread()
    await club.trash(club.root["id"])
    assert await club.owner.error_code(404, "GET", f"/discussions/{thread['id']}") == "NOT_FOUND_IN_NODE"
    path = f"/discussions/{thread['id']}/replies"
    assert await club.owner.error_code(404, "POST", path, {"body": "x"}) == "NOT_FOUND_IN_NODE"


async def test_replayed_creation_creates_no_second_thread(club: Club) -> None:
    body = {"target": club.study, "kind": "note", "body": "once"}
    first = await club.commenter.send("POST", "/discussions", body, headers={"Idempotency-Key": "k"})
    again = await club.commenter.send("POST", "/discussions", body, headers={"Idempotency-Key": "k"})
    assert (again.content, again.headers["idempotent-replayed"]) == (first.content, "true")
    assert await bodies(club, club.study) == ["once"]


async def test_one_of_two_concurrent_changes_of_a_thread_is_stale(club: Club) -> None:
    thread = await club.thread()
    path = f"/discussions/{thread['id']}"
    answers = await asyncio.gather(
        *(club.commenter.send("PATCH", path, {"body": str(number)}, match=1) for number in range(4))
    )
    assert sorted(one.status_code for one in answers) == [200, 412, 412, 412]
    assert (await club.types()).count("discussion.thread.updated") == 1
