"""64 requests with one key at once, over real sockets, at an API of two processes."""

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import httpx2 as httpx
import pytest

from tests.fixtures.api_commands import SESSIONS, create_session
from tests.fixtures.bounds import WAIT_S
from tests.fixtures.idempotent_api import EVERYTHING, IdempotentApi, authorization_of
from tests.fixtures.request_bursts import (
    BURST_REQUESTS,
    BurstRequest,
    Variation,
    make_burst,
    send_burst,
    send_request,
)
from tests.fixtures.service_processes import API
from tests.fixtures.system_under_test import SystemUnderTest

ROUNDS = [3, pytest.param(250, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])]
#: Maximum of attempts until both processes have served a request; the kernel assigns connections.
MORE_ROUNDS = 20
#: Subject of a remark.
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
    SELECT session.id::text AS session, session.user_id AS owner,
        (SELECT count(*) FROM domain_events WHERE aggregate_id = session.id::text) AS events,
        (SELECT count(*) FROM event_outbox WHERE key = session.id::text) AS outbox
    FROM command_inbox AS inbox JOIN genesis_sessions AS session ON session.id = inbox.session_id
    WHERE inbox.idempotency_key = $1
"""


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", Variation)
async def test_one_of_64_requests_with_one_key_is_executed(
    api: IdempotentApi, kind: Variation, rounds: int
) -> None:
    """One execution per user (G61, rule 4): one row, one event, one claim, one response."""
    processes = {str(await api.start()) for _ in range(2)}
    served = set[str]()

    async def note(answer: httpx.Response) -> None:
        served.add(answer.headers["x-process"])

    for done in range(rounds + MORE_ROUNDS):
        if done >= rounds and served == processes:
            break
        # A connection stays with its process: each round opens new connections.
        async with api.client(connections=BURST_REQUESTS) as client:
            client.event_hooks["response"].append(note)
            mark = uuid4().hex
            bodies = json.dumps({"mark": mark}), json.dumps({"mark": mark, "what": "more"})
            executed = await send_burst(client, mark, make_burst(kind, two_routes, bodies))
            for user, (request, answer) in executed.items():
                assert await api.counts(mark, user) == EVERYTHING
                assert (answer.json()["for"], f"/{answer.json()['route']}") == (user, request.path)
    assert served == processes


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("kind", Variation)
async def test_one_of_64_commands_with_one_key_is_accepted(
    system: SystemUnderTest, kind: Variation, rounds: int
) -> None:
    """The command may be repeated, so that only the key prevents a second execution."""
    if API not in system.services.running():
        await system.services.start(API, API_WORKERS="2")
    async with system.superuser() as connection, clients(system) as client:
        sessions = {
            user: [await proposed(connection, client, user) for _ in range(2)] for user in ("ann", "ben")
        }
        paths = {user: tuple(f"{SESSIONS}/{one}/commands" for one in own) for user, own in sessions.items()}
        for _ in range(rounds):
            key = uuid4().hex
            bodies = remark(key), remark(f"{key} more")
            executed = await send_burst(client, key, make_burst(kind, lambda user: paths[user], bodies))
            rows = await connection.fetch(OF_KEY, key)
            taken = {request.path.split("/")[-2] for request, _ in executed.values()}
            assert [(row["session"], row["events"], row["outbox"]) for row in rows] == [
                (row["session"], 1, 1) for row in rows
            ]
            assert sorted(row["session"] for row in rows) == sorted(taken)


@pytest.mark.guarantee("G62")
@pytest.mark.parametrize("rounds", [1, pytest.param(100, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("kind", [Variation.SAME, Variation.BODY, Variation.USER])
async def test_one_of_64_sessions_with_one_key_is_created(
    system: SystemUnderTest, kind: Variation, rounds: int
) -> None:
    """Each request would create its own session: only the key prevents that."""
    if API not in system.services.running():
        await system.services.start(API, API_WORKERS="2")
    async with system.superuser() as connection, clients(system) as client:
        for _ in range(rounds):
            key = uuid4().hex
            requests = make_burst(
                kind, lambda _: (SESSIONS, SESSIONS), ("{}", json.dumps({"novel_id": str(uuid4())}))
            )
            executed = await send_burst(client, key, requests)
            rows = await connection.fetch(OF_CREATE, key)
            begun = {answer.json()["session_id"]: user for user, (_, answer) in executed.items()}
            assert {row["session"]: row["owner"] for row in rows} == begun
            assert [(row["events"], row["outbox"]) for row in rows] == [(1, 1)] * len(begun)


@pytest.mark.guarantee("G61")
async def test_key_is_scoped_to_the_principal_across_refreshed_tokens(
    api: IdempotentApi,
) -> None:
    """A principal is issuer and subject: the same name at another issuer is another principal."""
    key, request = uuid4().hex, BurstRequest(user="ann", path="/orders", body=json.dumps({"mark": "one"}))
    process = await api.start()
    async with api.client() as client:
        _, first = await send_request(client, key, request)
        headers = {**first.request.headers, "authorization": authorization_of("ann", ttl_s=60)}
        again = await client.post(request.path, content=request.body, headers=headers)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.content == first.content
        await api.kill(process)
        await api.start(JWT_ISSUER="another")
        headers["authorization"] = authorization_of("ann", issuer="another")
        other = await client.post(request.path, content=request.body, headers=headers)
    assert "idempotent-replayed" not in other.headers
    assert other.json()["order"] != first.json()["order"]


def two_routes(_who: str) -> tuple[str, str]:
    return "/orders", "/refunds"


def remark(text: str) -> str:
    return json.dumps({"command_type": "SubmitFeedback", "payload": {"feedback": text}})


@asynccontextmanager
async def clients(system: SystemUnderTest) -> AsyncGenerator[httpx.AsyncClient]:
    """Return a client with as many connections as requests."""
    limits = httpx.Limits(max_connections=BURST_REQUESTS, max_keepalive_connections=BURST_REQUESTS)
    url = system.services.url(API)
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_S, limits=limits, trust_env=False) as client:
        yield client


async def proposed(connection: asyncpg.Connection, client: httpx.AsyncClient, user: str) -> str:
    """Create a session of *user* with a proposal."""
    client.headers["authorization"] = authorization_of(user)
    session = await create_session(client)
    await connection.execute(
        "UPDATE genesis_sessions SET draft = $2::text::jsonb WHERE id = $1", session, json.dumps(PROPOSAL)
    )
    return session
