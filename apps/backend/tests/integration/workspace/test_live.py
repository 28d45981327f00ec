"""The live stream of a node: all events in order, as long as the client may read the node."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2 as httpx
import pytest
from relaybox.db import Database
from relaybox.http import _live
from relaybox.telemetry import serve_health

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.club import Club
from tests.fixtures.studio import PREFIX, Person, Studio, open_studio


class Ear:
    """A client of a node's stream."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self) -> Any:
        """Return the next event with its ``id`` and ``type``, or null if the stream has ended."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
            elif "data" in fields:
                return {"id": fields.get("id"), "type": fields["event"], **json.loads(fields["data"])}
            else:
                fields = {}
        return None

    async def types(self, count: int) -> list[str]:
        """Return the types of the next events."""
        return [(await self.next())["type"] for _ in range(count)]

    async def rest(self) -> list[str]:
        """Return the types of all events until the stream ends."""
        found: list[str] = []
        while (event := await self.next()) is not None:
            found.append(event["type"])
        return found


class Broadcast:
    """The club's application on a socket, with running streams."""

    def __init__(self, club: Club, http: httpx.AsyncClient) -> None:
        self._club, self._http = club, http

    def as_heard(self, person: Person) -> Person:
        """Return the same user as a client of the socket."""
        return Person(self._http, person.name, person.share_token)

    @asynccontextmanager
    async def follow(
        self, person: Person, node_id: str | None = None, *, last: object = None, **params: Any
    ) -> AsyncIterator[Ear]:
        """Open the stream of a node (by default the study); leaving the context closes it."""
        headers = self.as_heard(person).headers() | ({} if last is None else {"Last-Event-ID": str(last)})
        path = f"{PREFIX}/nodes/{node_id or self._club.study}/events"
        async with (
            asyncio.timeout(WAIT_S),
            self._http.stream("GET", path, headers=headers, params=params) as answer,
        ):
            if not answer.is_success:
                await answer.aread()
                raise AssertionError(f"{answer.status_code} {answer.text}")
            assert answer.headers["content-type"].startswith("text/event-stream")
            yield Ear(answer.aiter_lines())


@pytest.fixture
async def studio(database: Database) -> AsyncIterator[Studio]:
    """Start an application for this test only, because stopped streams do not start again."""
    async with open_studio(database) as one:
        yield one


@pytest.fixture
async def broadcast(club: Club, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broadcast]:
    # By default, streams in these tests end by a notification, not by a poll.
    for name in ("_PING_S", "_POLL_S"):
        monkeypatch.setattr(_live, name, 1_000.0)
    backbone = club.studio.backbone
    backbone.notifier.attach(backbone.database.sessions)
    await backbone.notifier.start()
    await backbone.live.start()
    async with asyncio.timeout(WAIT_S):
        await backbone.live._listener.listening.wait()
    async with serve_health(club.studio.app, host="127.0.0.1", port=0) as port:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=WAIT_S) as http:
            yield Broadcast(club, http)
        await backbone.live.stop()
    await backbone.notifier.stop()


FIRST = ["study.created", "study.chapter.created"]


@pytest.mark.guarantee("G84")
async def test_stream_sends_recorded_events_and_then_new_ones(club: Club, broadcast: Broadcast) -> None:
    async with broadcast.follow(club.viewer) as ear:
        assert await ear.types(2) == FIRST
        thread = await club.thread(chapter_id=str(club.chapter.id), move_path="e2e4")
        told = await ear.next()
    assert (told["id"], told["type"]) == ("3", "discussion.thread.created")
    assert told["payload"] == {
        "thread_id": thread["id"],
        "chapter_id": str(club.chapter.id),
        "move_path": "e2e4",
        "kind": "question",
    }


async def test_stream_does_not_send_text_that_was_changed_later(club: Club, broadcast: Broadcast) -> None:
    path = f"/studies/{club.study}/chapters/{club.chapter.id}/moves/e2e4/annotation"
    for words in ("a secret", "another"):
        await club.owner.call("PUT", path, {"text": words}, match="*")
    async with broadcast.follow(club.viewer, last=2) as ear:
        told = [(await ear.next())["payload"] for _ in range(2)]
    assert told == [{"chapter_id": str(club.chapter.id), "move_path": "e2e4"}] * 2


@pytest.mark.guarantee("G84")
async def test_interrupted_stream_resumes_without_gap_or_duplicate(club: Club, broadcast: Broadcast) -> None:
    thread, seen = await club.thread(), []
    for number in range(5):
        async with broadcast.follow(club.viewer, last=seen[-1] if seen else None) as ear:
            seen.append((await ear.next())["id"])
        await club.reply(thread, body=str(number))  # while no client is connected
    assert seen == ["1", "2", "3", "4", "5"]
    async with broadcast.follow(club.viewer, after=6) as ear:
        assert (await ear.next())["id"] == "7"
    async with broadcast.follow(club.viewer, last=99) as ear:
        assert await ear.rest() == ["reset"]


async def test_stream_from_the_beginning_has_no_deleted_text(club: Club, broadcast: Broadcast) -> None:
    thread = await club.thread(body="a private word", title="a private title")
    reply = await club.reply(thread, body="a private answer")
    await club.commenter.call("DELETE", f"/replies/{reply['id']}")
    async with broadcast.follow(club.owner) as ear:
        told = [await ear.next() for _ in range(5)]
    assert told[-1]["type"] == "discussion.reply.deleted"
    assert "private" not in str(told)


async def test_public_node_is_streamed_without_a_token(club: Club, broadcast: Broadcast) -> None:
    anonymous, path = broadcast.as_heard(club.anonymous), f"/nodes/{club.study}/events"
    assert await anonymous.error_code(401, "GET", path) == "TOKEN_MISSING"
    await club.set_visibility("public")
    async with broadcast.follow(club.anonymous) as ear:
        assert await ear.types(2) == FIRST


@pytest.mark.guarantee("G81")
async def test_stream_of_a_hidden_node_gets_the_response_of_a_missing_one(
    club: Club, broadcast: Broadcast
) -> None:
    for node_id in (club.study, uuid4(), "no-id"):
        for method, what in (("GET", "events"), ("POST", "stream-ticket")):
            path = f"/nodes/{node_id}/{what}"
            assert await broadcast.as_heard(club.stranger).error_code(404, method, path) == "NODE_NOT_FOUND"
            assert await broadcast.as_heard(club.anonymous).error_code(401, method, path) == "TOKEN_MISSING"


async def test_ticket_opens_one_stream_of_its_node_without_a_header(club: Club, broadcast: Broadcast) -> None:
    ticket = (await club.viewer.call("POST", f"/nodes/{club.study}/stream-ticket"))["ticket"]
    browser = broadcast.as_heard(club.anonymous)
    elsewhere = f"/nodes/{club.root['id']}/events?ticket={ticket}"
    assert await browser.error_code(401, "GET", elsewhere) == "TOKEN_MISSING"
    assert await browser.error_code(401, "GET", f"/nodes/no-id/events?ticket={ticket}") == "TOKEN_MISSING"
    async with broadcast.follow(club.anonymous, ticket=ticket) as ear:
        assert await ear.types(2) == FIRST
    again = f"/nodes/{club.study}/events?ticket={ticket}"
    assert await browser.error_code(401, "GET", again) == "TOKEN_MISSING"
    await club.set_visibility("public")
    assert (
        await club.anonymous.error_code(401, "POST", f"/nodes/{club.study}/stream-ticket") == "TOKEN_MISSING"
    )


async def test_ticket_does_not_give_access_by_a_link(club: Club) -> None:
    guest = await club.stranger.open_link(await club.owner.link(club.chapter.study, "viewer"))
    assert await guest.error_code(404, "POST", f"/nodes/{club.study}/stream-ticket") == "NODE_NOT_FOUND"


async def revoke(club: Club) -> None:
    await club.owner.call("DELETE", f"/share/{club.root['id']}/users/viewer")


async def make_private(club: Club) -> None:
    await club.set_visibility("private")


async def take_away(club: Club) -> None:
    """Move the node out of the tree in which the reader has a grant."""
    version = (await club.owner.call("GET", f"/nodes/{club.study}"))["version"]
    path = f"/nodes/{club.study}/move"
    await club.owner.call("POST", path, {"parent_id": None}, match=version)


@pytest.mark.guarantee("G84")
@pytest.mark.parametrize("lose", [revoke, make_private, take_away])
async def test_stream_ends_when_access_to_the_node_is_lost(
    club: Club, broadcast: Broadcast, lose: Any
) -> None:
    async with broadcast.follow(club.viewer) as ear, broadcast.follow(club.owner) as owners:
        assert await ear.types(2) == await owners.types(2) == FIRST
        await lose(club)
        await club.thread(club.owner)
        assert await ear.rest() == []
        while (await owners.next())["type"] != "discussion.thread.created":
            pass


@pytest.mark.guarantee("G84")
async def test_stream_without_a_token_ends_when_the_node_is_not_public(
    club: Club, broadcast: Broadcast
) -> None:
    await club.set_visibility("public")
    async with broadcast.follow(club.anonymous) as ear:
        assert await ear.types(2) == FIRST
        await club.set_visibility("shared")
        assert await ear.rest() == []


@pytest.mark.guarantee("G84")
async def test_revoked_link_ends_its_streams(club: Club, broadcast: Broadcast) -> None:
    link = await club.owner.link(club.chapter.study, "viewer")
    async with broadcast.follow(await club.anonymous.open_link(link)) as ear:
        assert await ear.types(3) == [*FIRST, "acl.link_created"]
        await club.owner.call("DELETE", f"/share/links/{link['id']}")
        assert await ear.rest() == []


@pytest.mark.guarantee("G84")
async def test_trashing_and_restoring_are_streamed_in_order(club: Club, broadcast: Broadcast) -> None:
    async with broadcast.follow(club.viewer) as ear:
        assert await ear.types(2) == FIRST
        await club.trash(club.study)
        assert await ear.rest() == ["node.trashed"]
    path = f"/nodes/{club.study}/events"
    assert await broadcast.as_heard(club.viewer).error_code(404, "GET", path) == "NODE_NOT_FOUND"
    await club.restore(club.study)
    await club.thread()
    async with broadcast.follow(club.viewer, last=3) as ear:
        assert await ear.types(2) == ["node.restored", "discussion.thread.created"]


@pytest.mark.guarantee("G84")
async def test_streams_of_nodes_below_a_trashed_node_end(club: Club, broadcast: Broadcast) -> None:
    async with broadcast.follow(club.viewer) as ear:
        assert await ear.types(2) == FIRST
        await club.trash(club.root["id"])
        assert await ear.rest() == []


@pytest.mark.guarantee("G84")
async def test_stream_ends_at_the_next_ping_after_access_was_lost_without_event(
    club: Club, broadcast: Broadcast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_live, "_PING_S", 0.05)
    async with broadcast.follow(club.viewer) as ear:
        assert await ear.types(2) == FIRST
        async with club.studio.backbone.database.connection() as connection:
            await connection.fetch("DELETE FROM workspace_grants WHERE user_id = 'viewer'")
        assert await ear.rest() == []
