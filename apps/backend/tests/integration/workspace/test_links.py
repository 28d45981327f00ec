"""Links: create, open without a token, count wrong passwords, revoke."""

import asyncio
import threading
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from backend.workspace.sharing import _link_opener as link_door
from backend.workspace.sharing import _links as links
from backend.workspace.sharing import _passwords as passwords
from backend.workspace.sharing._passwords import HASHES_PER_HOLDER_MAX, Cost, PasswordHasher
from pydantic_core import to_json
from relaybox.db import Database

from tests.fixtures.studio import Studio, open_studio

EVERYTHING = """
    SELECT 'events' AS place, to_jsonb(one)::text AS text FROM domain_events AS one
    UNION ALL SELECT 'inbox', to_jsonb(one)::text FROM command_inbox AS one
    UNION ALL SELECT 'outbox', to_jsonb(one)::text FROM event_outbox AS one
    UNION ALL SELECT 'links', to_jsonb(one)::text FROM workspace_links AS one
    UNION ALL SELECT 'answers', to_jsonb(one)::text FROM idempotency_cache AS one
    UNION ALL SELECT 'bodies', encode(body, 'escape') FROM idempotency_bodies
"""
CHEAP = Cost(log_n=4, p=1)


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords.hash_password, "__defaults__", (CHEAP,))


async def expire(database: Database, link: Any) -> None:
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE workspace_links SET expires_at = created_at WHERE id = $1::uuid", link["id"]
        )


async def test_link_gives_its_role_to_each_holder(studio: Studio) -> None:
    root = await studio.teacher.node("workspace", "Club")
    study = await studio.teacher.node("study", "Endgames", root)
    link = await studio.teacher.link(study, "viewer")
    seen = await studio.anonymous.call("GET", f"/links/{link['token']}")
    assert seen == {
        "title": "Endgames",
        "kind": "study",
        "role": "viewer",
        "needs_password": False,
        "expires_at": None,
    }
    opened = await studio.anonymous.call("POST", f"/links/{link['token']}/open", {})
    assert (opened["node_id"], opened["role"]) == (study["id"], "viewer")
    guest = await studio.anonymous.open_link(link)
    detail = await guest.call("GET", f"/nodes/{study['id']}")
    assert (detail["role"], detail["path"]) == ("viewer", [])
    assert await guest.error_code(404, "GET", f"/nodes/{root['id']}") == "NODE_NOT_FOUND"
    assert await studio.anonymous.error_code(401, "GET", f"/nodes/{study['id']}") == "TOKEN_MISSING"


async def test_write_with_a_link_needs_a_bearer_token(studio: Studio) -> None:
    root = await studio.teacher.node("workspace")
    link = await studio.teacher.link(root, "editor")
    body = {"kind": "study", "title": "Guests", "parent_id": root["id"]}
    guest = await studio.anonymous.open_link(link)
    assert await guest.error_code(401, "POST", "/nodes", body) == "TOKEN_MISSING"
    pupil = await studio.pupil.open_link(link)
    made = await pupil.call("POST", "/nodes", body)
    assert made["created_by"] == "pupil"
    assert await pupil.error_code(403, "GET", f"/share/{root['id']}") == "ROLE_MISSING"
    assert await studio.pupil.error_code(404, "GET", f"/nodes/{root['id']}") == "NODE_NOT_FOUND"


async def test_token_and_password_are_stored_only_as_hashes(studio: Studio, database: Database) -> None:
    node = await studio.teacher.node("workspace")
    headers = {"Idempotency-Key": "once"}
    path, body = f"/share/{node['id']}/links", {"role": "editor", "password": "correct horse"}
    made = await studio.teacher.send("POST", path, body, headers=dict(headers))
    link = made.json()
    assert (made.status_code, made.headers["cache-control"], len(link["token"])) == (201, "no-store", 43)
    assert made.headers["location"] == f"/api/v1/share/links/{link['id']}"
    await studio.anonymous.open_link(link, password="correct horse")
    async with database.connection() as connection:
        kept = await connection.fetch(EVERYTHING)
        [secret] = await connection.fetch("SELECT token_hash, password_hash FROM workspace_link_secrets")
    hashes = (secret["token_hash"].hex(), secret["password_hash"])
    assert {row["place"] for row in kept} >= {"events", "inbox", "outbox", "links", "answers"}
    for row in kept:
        assert not any(one in row["text"] for one in (link["token"], "correct horse", *hashes)), row["place"]
    payload = (await studio.stream(node["id"]))[-1].payload
    assert payload == {"link_id": link["id"], "role": "editor", "has_password": True, "expires_at": None}


async def test_response_with_the_token_is_not_replayed(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    path, body = f"/share/{node['id']}/links", {"role": "viewer"}
    asked = [
        await studio.teacher.send("POST", path, body, headers={"Idempotency-Key": "once"}) for _ in range(2)
    ]
    first, again = asked
    assert (again.status_code, again.json()["error_code"]) == (410, "RESPONSE_NOT_KEPT")
    assert "secret" in again.json()["message"]
    assert again.headers["location"] == first.headers["location"]
    assert len((await studio.teacher.call("GET", f"/share/{node['id']}"))["links"]) == 1


@pytest.mark.parametrize("how", ["revoked", "expired", "trashed", "private", "unknown", "no token"])
async def test_invalid_link_gets_the_response_of_an_unknown_one(
    studio: Studio, database: Database, how: str
) -> None:
    root = await studio.teacher.node("workspace")
    study = await studio.teacher.node("study", parent=root)
    link = await studio.teacher.link(study, "viewer")
    guest = await studio.anonymous.open_link(link)
    match how:
        case "revoked":
            await studio.teacher.call("DELETE", f"/share/links/{link['id']}")
        case "expired":
            await expire(database, link)
        case "trashed":
            await studio.teacher.call("DELETE", f"/nodes/{root['id']}", match=1)
        case "private":
            await studio.teacher.call("PATCH", f"/nodes/{root['id']}", {"visibility": "private"}, match=1)
        case _:
            link["token"] = "A" * 43 if how == "unknown" else "a%00b"
    assert await studio.anonymous.error_code(404, "GET", f"/links/{link['token']}") == "LINK_NOT_FOUND"
    assert (
        await studio.anonymous.error_code(404, "POST", f"/links/{link['token']}/open", {}) == "LINK_NOT_FOUND"
    )
    if how not in ("unknown", "no token"):
        # The share token of a guest who had opened the link is invalid at once.
        assert await guest.error_code(404, "GET", f"/nodes/{study['id']}") == "NODE_NOT_FOUND"


async def test_revoked_link_keeps_no_secret_and_cannot_be_revoked_again(
    studio: Studio, database: Database
) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="x")
    path = f"/share/links/{link['id']}"
    for _ in range(2):
        done = await studio.teacher.send("DELETE", path, headers={"Idempotency-Key": "gone"})
        assert done.status_code == 204
    assert await studio.teacher.error_code(404, "DELETE", path) == "NOT_FOUND_IN_NODE"
    assert (await studio.stream(node["id"]))[-1].type == "acl.link_revoked"
    async with database.connection() as connection:
        assert await connection.fetch("SELECT FROM workspace_link_secrets") == []


async def test_only_an_admin_creates_and_revokes_links(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer")
    await studio.teacher.share(node, "pupil", "editor")
    path = f"/share/{node['id']}/links"
    assert await studio.pupil.error_code(403, "POST", path, {"role": "viewer"}) == "ROLE_MISSING"
    assert await studio.pupil.error_code(403, "DELETE", f"/share/links/{link['id']}") == "ROLE_MISSING"
    assert await studio.teacher.error_code(422, "POST", path, {"role": "admin"}) == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    "expires_at",
    ["2001-01-01T00:00:00Z", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "2030-01-01T00:00:00"],
)
async def test_expiry_of_a_link_is_in_the_future_and_bounded(studio: Studio, expires_at: str) -> None:
    node = await studio.teacher.node("workspace")
    body = {"role": "viewer", "expires_at": expires_at}
    code = await studio.teacher.error_code(422, "POST", f"/share/{node['id']}/links", body)
    assert code == "VALIDATION_ERROR"


async def test_share_token_expires_with_its_link(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    ends_at = datetime.now(timezone(timedelta(hours=5))) + timedelta(hours=2)
    link = await studio.teacher.link(node, "viewer", expires_at=ends_at.isoformat())
    opened = await studio.anonymous.call("POST", f"/links/{link['token']}/open", {})
    assert datetime.fromisoformat(opened["expires_at"]) == ends_at
    payload = (await studio.stream(node["id"]))[-1].payload
    assert payload["expires_at"] == ends_at.astimezone(UTC).isoformat()


async def test_number_of_links_of_a_node_is_limited(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "LINKS_MAX", 1)
    node = await studio.teacher.node("workspace")
    await studio.teacher.link(node, "viewer")
    code = await studio.teacher.error_code(409, "POST", f"/share/{node['id']}/links", {"role": "viewer"})
    assert code == "SHARE_LIMIT_REACHED"


async def test_link_with_a_password_opens_with_the_password(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="Zoë ☕")
    path = f"/links/{link['token']}/open"
    assert (await studio.anonymous.call("GET", f"/links/{link['token']}"))["needs_password"]
    for body in ({}, {"password": None}, {"password": "zoë ☕"}):
        assert await studio.anonymous.error_code(403, "POST", path, body) == "LINK_PASSWORD_WRONG"
    # A request without a password is not counted as a wrong password.
    for _ in range(link_door.TRIES_FREE):
        assert await studio.anonymous.error_code(403, "POST", path, {}) == "LINK_PASSWORD_WRONG"
    # The same letters in another Unicode composition.
    guest = await studio.anonymous.open_link(link, password="Zoe\u0308 ☕")
    await guest.call("GET", f"/nodes/{node['id']}")


async def test_wrong_passwords_cause_a_growing_pause(studio: Studio, database: Database) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="right")
    path, pauses = f"/links/{link['token']}/open", list[int]()
    for _ in range(link_door.TRIES_FREE - 1):
        assert (
            await studio.anonymous.error_code(403, "POST", path, {"password": "no"}) == "LINK_PASSWORD_WRONG"
        )
    for _ in range(9):
        await studio.anonymous.error_code(403, "POST", path, {"password": "no"})
        refused = await studio.anonymous.send("POST", path, {"password": "right"})
        assert (refused.status_code, refused.json()["error_code"]) == (429, "LINK_TRIES_EXCEEDED")
        pauses.append(int(refused.headers["retry-after"]))
        async with database.connection() as connection:
            await connection.fetch("UPDATE workspace_link_secrets SET refused_until = clock_timestamp()")
    assert pauses == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    await studio.anonymous.open_link(link, password="right")
    for _ in range(link_door.TRIES_FREE - 1):
        await studio.anonymous.error_code(403, "POST", path, {"password": "no"})
    await studio.anonymous.open_link(link, password="right")


async def test_200_concurrent_wrong_passwords_count_as_five_attempts(
    studio: Studio, database: Database
) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="right")
    path = f"/links/{link['token']}/open"
    async with open_studio(database) as other:
        people = [studio.anonymous, other.anonymous] * 100
        answers = await asyncio.gather(*(one.send("POST", path, {"password": "no"}) for one in people))
    assert Counter(one.status_code for one in answers) == {403: 5, 429: 195}
    assert all(1 <= int(one.headers["retry-after"]) <= 30 for one in answers if one.status_code == 429)


async def test_concurrent_attempts_cannot_exceed_the_count_in_the_database(
    studio: Studio, database: Database
) -> None:
    """The test removes the queue of the process, as if each attempt came to another process."""
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="right")

    async def begin() -> int:
        async with database.connection() as connection:
            return len(
                await connection.fetch(
                    links.LINKS_SQL["begin_password_try"], link["id"], 5, 30.0, 3_600.0, 600.0
                )
            )

    assert sum(await asyncio.gather(*(begin() for _ in range(50)))) == 5


async def test_passwords_beyond_the_hashing_limit_are_refused_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on, compute = threading.Event(), passwords._scrypt

    def waiting(*args: Any) -> bytes:
        going_on.wait()
        return compute(*args)

    async with open_studio(database) as studio:
        node = await studio.teacher.node("workspace")
        link = await studio.teacher.link(node, "viewer", password="right")
        monkeypatch.setattr(passwords, "_scrypt", waiting)
        opening = [
            asyncio.create_task(
                studio.anonymous.send("POST", f"/links/{link['token']}/open", {"password": "right"})
            )
            for _ in range(HASHES_PER_HOLDER_MAX + 1)
        ]
        try:
            # All other requests wait for the first hash.
            [refused], _ = await asyncio.wait(opening, return_when=asyncio.FIRST_COMPLETED)
        finally:
            going_on.set()
        answers = await asyncio.gather(*opening)
    answer = refused.result()
    assert (answer.status_code, answer.json()["error_code"]) == (429, "TOO_MANY_PASSWORDS")
    assert int(answer.headers["retry-after"]) > 0
    assert Counter(one.status_code for one in answers) == {200: HASHES_PER_HOLDER_MAX, 429: 1}


async def test_threads_for_passwords_end_with_the_application(database: Database) -> None:
    def threads() -> set[threading.Thread]:
        return {one for one in threading.enumerate() if one.name.startswith("passwords")}

    before = threads()
    async with open_studio(database) as studio, studio.app.router.lifespan_context(studio.app):
        await studio.teacher.link(await studio.teacher.node("workspace"), "viewer", password="right")
        assert threads() - before
    assert not threads() - before


async def test_30_users_can_open_a_link_at_the_same_time(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="right")
    path = f"/links/{link['token']}/open"
    people = (studio.anonymous.send("POST", path, {"password": "right"}) for _ in range(30))
    assert Counter(one.status_code for one in await asyncio.gather(*people)) == {200: 30}


async def test_share_token_and_bearer_token_are_not_interchangeable(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer")
    ticket = (await studio.anonymous.open_link(link)).share_token
    path = f"/nodes/{node['id']}"
    as_token = {"Authorization": f"Bearer {ticket}"}
    assert await studio.anonymous.error_code(401, "GET", path, headers=as_token) == "TOKEN_INVALID"
    token = studio.stranger.headers()["Authorization"].removeprefix("Bearer ")
    for wrong in (token, "x"):
        as_ticket = {"X-Share-Token": wrong}
        assert await studio.anonymous.error_code(401, "GET", path, headers=as_ticket) == "SHARE_TOKEN_INVALID"
        assert await studio.teacher.error_code(401, "PATCH", path, {}, match=1, headers=as_ticket)


async def test_higher_role_of_a_grant_and_a_link_counts(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer")
    await studio.teacher.share(node, "pupil", "editor")
    pupil = await studio.pupil.open_link(link)
    assert (await pupil.call("GET", f"/nodes/{node['id']}"))["role"] == "editor"


async def test_neither_token_nor_password_is_logged(
    studio: Studio, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="correct horse")
    guest = await studio.anonymous.open_link(link, password="correct horse")
    await studio.anonymous.error_code(
        403, "POST", f"/links/{link['token']}/open", {"password": "battery staple"}
    )
    await studio.anonymous.error_code(
        422, "POST", f"/links/{link['token']}/open", {"password": ["battery staple"]}
    )
    ours = (one.getMessage() for one in caplog.records if not one.name.startswith("httpx"))
    shown = capsys.readouterr().out + "".join(ours)
    assert "/links/{token}/open" in shown
    for secret in (link["token"], guest.share_token, "correct horse", "battery staple"):
        assert str(secret) not in shown
    assert b"battery" not in to_json([one.payload for one in await studio.stream(node["id"])])


async def test_count_of_wrong_passwords_decreases_with_time(studio: Studio, database: Database) -> None:
    node = await studio.teacher.node("workspace")
    link = await studio.teacher.link(node, "viewer", password="correct horse")
    path, wrong = f"/links/{link['token']}/open", {"password": "a wrong one"}
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE workspace_link_secrets SET failures = 40, refused_until = now() - interval '1 day'"
        )
    for _ in range(link_door.TRIES_FREE - 1):
        assert await studio.anonymous.error_code(403, "POST", path, wrong) == "LINK_PASSWORD_WRONG"
    await studio.anonymous.open_link(link, password="correct horse")


async def test_link_holds_no_connection_while_its_password_is_hashed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    free: list[int] = []

    async def hashed(_self: PasswordHasher, _password: str) -> str:
        free.append(database.engine.pool.checkedout())  # pyright: ignore[reportAttributeAccessIssue]
        return "scrypt$4$1$AA==$AA=="

    monkeypatch.setattr(PasswordHasher, "hash", hashed)
    async with open_studio(database) as studio:
        node = await studio.teacher.node("workspace")
        await studio.teacher.link(node, "viewer", password="correct horse")
    assert free == [0]


async def test_shared_caches_do_not_store_responses_to_share_tokens(studio: Studio) -> None:
    node = await studio.teacher.node("workspace")
    guest = await studio.anonymous.open_link(await studio.teacher.link(node, "viewer"))
    for path in (f"/nodes/{node['id']}", f"/nodes/{node['id']}/children", "/nodes/x"):
        seen = await guest.send("GET", path)
        assert seen.headers["cache-control"] == "private, no-cache"
        assert "X-Share-Token" in seen.headers["vary"]
