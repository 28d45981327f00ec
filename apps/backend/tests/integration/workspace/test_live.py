"""The live stream of a node: everything in order, for as long as one may read the node."""

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
        """The next event with its ``id`` and ``type``; null where the stream has ended."""
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
        """The types of so many events."""
        return [(await self.next())["type"] for _ in range(count)]

    async def rest(self) -> list[str]:
        """The types of all events until the stream ends."""
        found: list[str] = []
        while (event := await self.next()) is not None:
            found.append(event["type"])
        return found


class Broadcast:
    """The club's application on a socket, with its streams running."""

    def __init__(self, club: Club, http: httpx.AsyncClient) -> None:
        self._club, self._http = club, http

    def as_heard(self, person: Person) -> Person:
        """The same person over the socket."""
        return Person(self._http, person.name, person.share_token)

    @asynccontextmanager
    async def follow(
        self, person: Person, node_id: str | None = None, *, last: object = None, **params: Any
    ) -> AsyncIterator[Ear]:
        """The stream of a node, the study unless told otherwise; leaving the context cuts it."""
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
    """An application of the test's own: streams that were stopped do not start again."""
    async with open_studio(database) as one:
        yield one


@pytest.fixture
async def broadcast(club: Club, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broadcast]:
    # What ends a stream in these tests is news, unless told otherwise.
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
async def test_a_nodes_stream_tells_history_and_then_what_happens(club: Club, broadcast: Broadcast) -> None:
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


async def test_a_nodes_stream_does_not_bring_back_what_was_changed_since(
    club: Club, broadcast: Broadcast
) -> None:
    path = f"/studies/{club.study}/chapters/{club.chapter.id}/moves/e2e4/annotation"
    for words in ("a secret", "another"):
        await club.owner.call("PUT", path, {"text": words}, match="*")
    async with broadcast.follow(club.viewer, last=2) as ear:
        told = [(await ear.next())["payload"] for _ in range(2)]
    assert told == [{"chapter_id": str(club.chapter.id), "move_path": "e2e4"}] * 2


@pytest.mark.guarantee("G84")
async def test_a_nodes_stream_cut_anywhere_is_resumed_without_gap_or_duplicate(
    club: Club, broadcast: Broadcast
) -> None:
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


async def test_words_that_were_deleted_cannot_be_heard_by_beginning_anew(
    club: Club, broadcast: Broadcast
) -> None:
    thread = await club.thread(body="a private word", title="a private title")
    reply = await club.reply(thread, body="a private answer")
    await club.commenter.call("DELETE", f"/replies/{reply['id']}")
    async with broadcast.follow(club.owner) as ear:
        told = [await ear.next() for _ in range(5)]
    assert told[-1]["type"] == "discussion.reply.deleted"
    assert "private" not in str(told)


async def test_a_public_node_is_heard_without_a_token(club: Club, broadcast: Broadcast) -> None:
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


async def test_a_ticket_does_not_stand_for_a_link(club: Club) -> None:
    guest = await club.stranger.open_link(await club.owner.link(club.chapter.study, "viewer"))
    assert await guest.error_code(404, "POST", f"/nodes/{club.study}/stream-ticket") == "NODE_NOT_FOUND"


async def revoke(club: Club) -> None:
    await club.owner.call("DELETE", f"/share/{club.root['id']}/users/viewer")


async def make_private(club: Club) -> None:
    await club.set_visibility("private")


async def take_away(club: Club) -> None:
    """Out of the tree in which the reader has a grant."""
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
async def test_a_stream_without_a_token_ends_when_the_node_is_public_no_more(
    club: Club, broadcast: Broadcast
) -> None:
    await club.set_visibility("public")
    async with broadcast.follow(club.anonymous) as ear:
        assert await ear.types(2) == FIRST
        await club.set_visibility("shared")
        assert await ear.rest() == []


@pytest.mark.guarantee("G84")
async def test_a_link_that_is_revoked_ends_its_streams(club: Club, broadcast: Broadcast) -> None:
    link = await club.owner.link(club.chapter.study, "viewer")
    async with broadcast.follow(await club.anonymous.open_link(link)) as ear:
        assert await ear.types(3) == [*FIRST, "acl.link_created"]
        await club.owner.call("DELETE", f"/share/links/{link['id']}")
        assert await ear.rest() == []


@pytest.mark.guarantee("G84")
async def test_bin_and_back_stand_in_the_order_of_everything_else(club: Club, broadcast: Broadcast) -> None:
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
async def test_streams_below_end_with_what_is_trashed_above(club: Club, broadcast: Broadcast) -> None:
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
