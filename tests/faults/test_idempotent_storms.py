"""64 requests with one key at once, over real sockets, at an API of two processes."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import httpx2 as httpx
import pytest

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.keyed import EVERYTHING, Keyed, bearer_of
from tests.fixtures.parts import API
from tests.fixtures.storms import AT_ONCE, Kind, Shot, send, storm, storm_of
from tests.fixtures.world import World
from tests.fixtures.writers import SESSIONS, created

ROUNDS = [3, pytest.param(250, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])]
#: For both processes to have served one; the kernel says who takes a connection.
MORE_ROUNDS = 20
#: What a remark is about.
PROPOSAL = {"proposal": {"command_id": str(uuid4()), "proposal": {}}}
OF_KEY = """
    SELECT inbox.session_id::text AS session,
        (SELECT count(*) FROM domain_events WHERE aggregate_id = inbox.session_id::text
            AND payload ->> 'feedback' LIKE $1 || '%') AS events,
        (SELECT count(*) FROM event_outbox WHERE key = inbox.session_id::text
            AND payload -> 'payload' ->> 'feedback' LIKE $1 || '%') AS outbox
    FROM command_inbox AS inbox WHERE idempotency_key = $1
"""

OF_CREATE = """
    SELECT session.id::text AS session, session.user_id AS who,
        (SELECT count(*) FROM domain_events WHERE aggregate_id = session.id::text) AS events,
        (SELECT count(*) FROM event_outbox WHERE key = session.id::text) AS outbox
    FROM command_inbox AS inbox JOIN genesis_sessions AS session ON session.id = inbox.session_id
    WHERE inbox.idempotency_key = $1
"""


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", Kind)
async def test_of_64_requests_with_one_key_one_is_executed_in_a_unit_of_work(
    keyed: Keyed, kind: Kind, rounds: int
) -> None:
    """Each user's one (G61, rule 4): one row, one event, one claim, one answer."""
    processes = {str(await keyed.start()) for _ in range(2)}
    served = set[str]()

    async def note(answer: httpx.Response) -> None:
        served.add(answer.headers["x-process"])

    for done in range(rounds + MORE_ROUNDS):
        if done >= rounds and served == processes:
            break
        # A connection stays with the process that took it: each round has connections of its own.
        async with keyed.client(connections=AT_ONCE) as client:
            client.event_hooks["response"].append(note)
            mark = uuid4().hex
            bodies = json.dumps({"mark": mark}), json.dumps({"mark": mark, "what": "more"})
            executed = await storm(client, mark, storm_of(kind, two_routes, bodies))
            for who, (shot, answer) in executed.items():
                assert await keyed.counts(mark, who) == EVERYTHING
                assert (answer.json()["for"], f"/{answer.json()['route']}") == (who, shot.path)
    assert served == processes


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", Kind)
async def test_of_64_commands_with_one_key_one_is_taken(world: World, kind: Kind, rounds: int) -> None:
    """Of a command that may come again and again, so that only the key holds a second one back."""
    if API not in world.parts.running():
        await world.parts.start(API, API_WORKERS="2")
    async with world.superuser() as connection, clients(world) as client:
        sessions = {
            who: [await proposed(connection, client, who) for _ in range(2)] for who in ("ann", "ben")
        }
        paths = {who: tuple(f"{SESSIONS}/{one}/commands" for one in own) for who, own in sessions.items()}
        for _ in range(rounds):
            key = uuid4().hex
            bodies = remark(key), remark(f"{key} more")
            executed = await storm(client, key, storm_of(kind, lambda who: paths[who], bodies))
            rows = await connection.fetch(OF_KEY, key)
            taken = {shot.path.split("/")[-2] for shot, _ in executed.values()}
            assert [(row["session"], row["events"], row["outbox"]) for row in rows] == [
                (row["session"], 1, 1) for row in rows
            ]
            assert sorted(row["session"] for row in rows) == sorted(taken)


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize("rounds", [1, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("kind", [Kind.SAME, Kind.BODY, Kind.USER])
async def test_of_64_sessions_begun_with_one_key_one_is_there(world: World, kind: Kind, rounds: int) -> None:
    """Each try would have a session of its own: nothing but the key brings them together."""
    if API not in world.parts.running():
        await world.parts.start(API, API_WORKERS="2")
    async with world.superuser() as connection, clients(world) as client:
        for _ in range(rounds):
            key = uuid4().hex
            shots = storm_of(
                kind, lambda _: (SESSIONS, SESSIONS), ("{}", json.dumps({"novel_id": str(uuid4())}))
            )
            executed = await storm(client, key, shots)
            rows = await connection.fetch(OF_CREATE, key)
            begun = {answer.json()["session_id"]: who for who, (_, answer) in executed.items()}
            assert {row["session"]: row["who"] for row in rows} == begun
            assert [(row["events"], row["outbox"]) for row in rows] == [(1, 1)] * len(begun)


@pytest.mark.guarantee("G61")
async def test_a_key_is_the_principals_and_a_refreshed_token_is_the_same_principal(
    keyed: Keyed,
) -> None:
    """Issuer and subject: the same name at another issuer is somebody else."""
    key, shot = uuid4().hex, Shot(who="ann", path="/orders", body=json.dumps({"mark": "one"}))
    process = await keyed.start()
    async with keyed.client() as client:
        _, first = await send(client, key, shot)
        headers = {**first.request.headers, "authorization": bearer_of("ann", ttl_s=60)}
        again = await client.post(shot.path, content=shot.body, headers=headers)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.content == first.content
        await keyed.kill(process)
        await keyed.start(JWT_ISSUER="another")
        headers["authorization"] = bearer_of("ann", issuer="another")
        other = await client.post(shot.path, content=shot.body, headers=headers)
    assert "idempotent-replayed" not in other.headers
    assert other.json()["order"] != first.json()["order"]


def two_routes(_who: str) -> tuple[str, str]:
    return "/orders", "/refunds"


def remark(text: str) -> str:
    return json.dumps({"command_type": "SubmitFeedback", "payload": {"feedback": text}})


@asynccontextmanager
async def clients(world: World) -> AsyncGenerator[httpx.AsyncClient]:
    """As many connections as requests."""
    limits = httpx.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
    url = world.parts.url(API)
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_S, limits=limits, trust_env=False) as client:
        yield client


async def proposed(connection: asyncpg.Connection, client: httpx.AsyncClient, who: str) -> str:
    """A session of *who* with a proposal."""
    client.headers["authorization"] = bearer_of(who)
    session = await created(client)
    await connection.execute(
        "UPDATE genesis_sessions SET draft = $2::text::jsonb WHERE id = $1", session, json.dumps(PROPOSAL)
    )
    return session
