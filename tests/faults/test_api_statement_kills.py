"""An API killed during the statement of a command: the command is atomic, and a client can find it out."""

import asyncio

import asyncpg
import httpx2 as httpx
import pytest

from tests.fixtures.api_commands import SESSIONS, create_session, send_command
from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.service_processes import API
from tests.fixtures.system_under_test import SystemUnderTest

CONTENT = {"title": "雾港", "logline": "雾港来信", "hook": "h", "themes": ["悬疑"], "tone": "cold"}
OF_SESSION = """
    SELECT (SELECT count(*) FROM command_inbox WHERE session_id = $1 AND command_type = 'ConfirmStage'),
        (SELECT count(*) FROM domain_events WHERE aggregate_id = $1::text AND aggregate_version = 2),
        (SELECT count(*) FROM event_outbox WHERE key = $1::text AND payload ->> 'version' = '2'),
        (SELECT version - 1 FROM genesis_sessions WHERE id = $1)
"""


@pytest.mark.guarantee("G01")
@pytest.mark.parametrize("done", [False, True], ids=["undone", "done"])
@pytest.mark.parametrize("table", ["command_inbox", "domain_events", "event_outbox"])
async def test_api_killed_at_its_statement_is_atomic_and_resend_completes(
    system: SystemUnderTest, table: str, done: bool
) -> None:
    """*undone*: the statement never completes; *done*: it completes after the API was killed."""
    await system.services.ensure_running(API)
    async with system.superuser() as connection, system.client() as client:
        session = await create_session(client)
        async with closed_gate(connection, Gate("INSERT", table)) as gate:
            sending = asyncio.create_task(confirm(client, session))
            await system.kill_at_gate(API, gate, done=done)
            with pytest.raises(httpx.TransportError):
                await sending
        expected = int(done)
        assert await counts(connection, session) == [expected] * 4
        await system.services.start(API)
        again = await confirm(client, session)
        assert again.status_code == (409 if done else 200), again.text
        assert await counts(connection, session) == [1, 1, 1, 1]
        state = (await client.get(f"{SESSIONS}/{session}/state")).json()
        inbox = await connection.fetch("SELECT id, session_id, command_type FROM command_inbox")
    assert (state["version"], state["current_stage"]) == (2, "STORY_CONCEPTION")
    assert system.sent.differences(inbox) == []


async def confirm(client: httpx.AsyncClient, session: str) -> httpx.Response:
    """Return the command that the client sends and repeats."""
    payload = {"stage": "CONCEPT_SELECTION", "content": CONTENT}
    return await send_command(client, session, "ConfirmStage", expected_version=1, **payload)


async def counts(connection: asyncpg.Connection, session: str) -> list[int]:
    return list(await connection.fetchrow(OF_SESSION, session))
