"""An API killed or cut off during a keyed command: a retry with the key returns the result."""

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2 as httpx
import pytest

from tests.faults.chaos._proxy import Direction, Proxy
from tests.fixtures.api_commands import SESSIONS, create_session
from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.idempotent_api import row_key
from tests.fixtures.service_processes import API
from tests.fixtures.system_under_test import SystemUnderTest

CONTENT = {"title": "雾港", "logline": "雾港来信", "hook": "h", "themes": ["悬疑"], "tone": "cold"}
COMMAND = {"command_type": "ConfirmStage", "payload": {"stage": "CONCEPT_SELECTION", "content": CONTENT}}
#: Inbox, event, outbox and claim, which holds the response, with their transactions.
OF_KEY = """
    SELECT xmin::text FROM command_inbox WHERE idempotency_key = $1
    UNION ALL SELECT xmin::text FROM domain_events WHERE aggregate_id = $2 AND aggregate_version = 2
    UNION ALL SELECT xmin::text FROM event_outbox WHERE key = $2 AND payload ->> 'version' = '2'
    UNION ALL SELECT xmin::text FROM idempotency_cache WHERE key = $3
"""
ROWS = 4


@pytest.mark.guarantee("G63")
@pytest.mark.parametrize("done", [False, True], ids=["undone", "done"])
@pytest.mark.parametrize(
    ("table", "times"),
    [
        ("idempotency_cache", 1),
        pytest.param("idempotency_cache", 10, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
        pytest.param("command_inbox", 10, marks=[pytest.mark.long, pytest.mark.timeout(900)]),
    ],
)
async def test_api_killed_at_a_keyed_command_is_atomic_and_frees_the_key(
    system: SystemUnderTest, table: str, done: bool, times: int
) -> None:
    """*undone*: the statement never completes; *done*: it completes after the API was killed.

    Without a key the second try of a command that is done is refused; with it, it is told what the first was.
    """
    await system.services.ensure_running(API)
    async with system.superuser() as connection, system.client() as client:
        for _ in range(times):
            await one_round(system, connection, client, Gate("INSERT", table), done=done)


@pytest.mark.guarantee("G05")
async def test_keyed_command_with_lost_response_is_replayed_from_its_row(system: SystemUnderTest) -> None:
    """The connection breaks after the statement took effect and before its response arrived."""
    proxy = Proxy(system.postgres.port)
    await proxy.start()
    await system.services.ensure_running(API)
    system.services.kill(API)
    await system.services.start(API, POSTGRES_PORT=str(proxy.port))
    async with system.superuser() as connection, system.client() as client:
        session, key = await create_session(client), uuid4().hex
        request = request_of(session, key)
        async with closed_gate(connection, Gate("INSERT", "idempotency_cache")) as held:
            sending = asyncio.create_task(client.post(**request))
            backend = await held.wait_until_reached()
            proxy.drop(Direction.RESPONSES)
            await held.open()
            await held.wait_until_passed(backend)
            proxy.cut(1.0)
            unknown = await sending
        proxy.drop()
        assert (unknown.status_code, unknown.json()["error_code"]) == (503, "DATABASE_UNAVAILABLE")
        assert len(await transactions(connection, session, key)) == ROWS
        again = await client.post(**request)
        assert (again.status_code, again.headers.get("idempotent-replayed")) == (200, "true"), again.text
        assert again.content == await answer_of(connection, key)
        assert len(await transactions(connection, session, key)) == ROWS
    system.services.kill(API)
    await proxy.close()


async def one_round(
    system: SystemUnderTest,
    connection: asyncpg.Connection,
    client: httpx.AsyncClient,
    gate: Gate,
    *,
    done: bool,
) -> None:
    session, key = await create_session(client), uuid4().hex
    request = request_of(session, key)
    async with closed_gate(connection, gate) as held:
        sending = asyncio.create_task(client.post(**request))
        await system.kill_at_gate(API, held, done=done)
        with pytest.raises(httpx.TransportError):
            await sending
    assert len(await transactions(connection, session, key)) == (ROWS if done else 0)
    stored = await answer_of(connection, key)
    await system.services.start(API)
    again = await client.post(**request)
    assert again.status_code == 200, again.text
    assert ("idempotent-replayed" in again.headers) == done
    assert again.content == (stored or await answer_of(connection, key))
    written = await transactions(connection, session, key)
    assert (len(written), len(set(written))) == (ROWS, 1)


def request_of(session: str, key: str) -> Mapping[str, Any]:
    """Return the arguments of ``client.post``."""
    url = f"{SESSIONS}/{session}/commands"
    return {"url": url, "json": COMMAND, "headers": {"Idempotency-Key": key}}


async def transactions(connection: asyncpg.Connection, session: str, key: str) -> list[str]:
    rows = await connection.fetch(OF_KEY, key, session, row_key(key, "writer"))
    return [row["xmin"] for row in rows]


async def answer_of(connection: asyncpg.Connection, key: str) -> bytes | None:
    text: str | None = await connection.fetchval(
        "SELECT result ->> '~t' FROM idempotency_cache WHERE key = $1", row_key(key, "writer")
    )
    return None if text is None else text.encode()
