"""Agents that are killed during a task, and sessions abandoned during a task."""

from collections.abc import AsyncGenerator
from typing import Any

import httpx2 as httpx
import pytest

from tests.fixtures.api_commands import SESSIONS, request_concepts, send_command, wait_until_idle
from tests.fixtures.gates import Gate, closed_gate
from tests.fixtures.service_processes import AGENT, API, RELAY
from tests.fixtures.system_under_test import SystemUnderTest
from tests.fixtures.waiting import eventually

AT_WORK = Gate("UPDATE", "async_tasks", "NEW.progress = 60 AND NEW.status = 'RUNNING'")
ALMOST_DONE = Gate("UPDATE", "async_tasks", "NEW.progress = 100 AND NEW.status = 'RUNNING'")
ATTEMPTS_MAX = 2


@pytest.fixture
async def client(system: SystemUnderTest) -> AsyncGenerator[httpx.AsyncClient]:
    """Open a client of an API with a relay; tests start their own agents."""
    await system.services.ensure_running(API, RELAY)
    async with system.client() as client:
        yield client
    for name in system.services.running().keys() - {API, RELAY}:
        system.services.stop(name)


@pytest.mark.guarantee("G43")
async def test_report_for_an_abandoned_session_is_refused(
    system: SystemUnderTest, client: httpx.AsyncClient
) -> None:
    """The agent is frozen while the session is abandoned, and resumes before its lease renewal is due."""
    await system.services.start(AGENT, TASK_LEASE_S="60")
    async with system.superuser() as connection, closed_gate(connection, ALMOST_DONE) as gate:
        session, path = await request_concepts(client)
        backend = await gate.wait_until_reached()
        system.services.freeze(AGENT)
        await gate.open()
        await gate.wait_until_passed(backend)
        assert (await send_command(client, session, "AbandonSession", reason="no time")).status_code == 200
        system.services.resume(AGENT)

    async def refused() -> bool:
        return "report superseded" in system.services.log_text(AGENT)

    await eventually("the refusal of the late report", refused)
    abandoned = await read(client, path)
    assert (abandoned["status"], abandoned["error"]["error_code"]) == ("FAILED", "SESSION_ABANDONED")
    task = await read(client, f"{SESSIONS}/{session}/tasks/{abandoned['task_id']}")
    assert (task["status"], task["result"]) == ("CANCELLED", None)
    assert await events_of(system, session) == ["Created", "ConceptGenerationRequested", "Updated"]
    await system.check_consistency()


@pytest.mark.guarantee("G06")
async def test_task_of_a_killed_agent_is_taken_over_and_ends_once(
    system: SystemUnderTest, client: httpx.AsyncClient
) -> None:
    await system.services.start(AGENT)
    async with system.superuser() as connection, closed_gate(connection, AT_WORK) as gate:
        session, path = await request_concepts(client)
        backend = await gate.wait_until_reached()
        await system.services.start("heir", AGENT)
        system.services.kill(AGENT)
        await gate.terminate(backend)
        await gate.open()
        await wait_until_idle(client, session)
        attempts = await connection.fetchval("SELECT max(attempts) FROM async_tasks")
    assert attempts >= 2, "no agent took the task over"
    assert (await read(client, path))["status"] == "COMPLETED"
    assert await events_of(system, session) == ["Created", "ConceptGenerationRequested", "ConceptProposed"]
    await system.check_consistency()


@pytest.mark.guarantee("G06")
async def test_request_that_kills_every_agent_fails_and_frees_the_session(
    system: SystemUnderTest, client: httpx.AsyncClient
) -> None:
    async with system.superuser() as connection, closed_gate(connection, AT_WORK) as gate:
        session, path = await request_concepts(client)
        for _ in range(ATTEMPTS_MAX):
            await system.services.start(AGENT, TASK_ATTEMPTS_MAX=str(ATTEMPTS_MAX))
            await system.kill_at_gate(AGENT, gate, done=False)
        await system.services.start(AGENT, TASK_ATTEMPTS_MAX=str(ATTEMPTS_MAX))
        assert (await wait_until_idle(client, session))["status"] == "IN_PROGRESS"
    given_up = await read(client, path)
    assert (given_up["status"], given_up["error"]["error_code"]) == ("FAILED", "AGENT_GAVE_UP")
    _, again = await request_concepts(client, session)
    await wait_until_idle(client, session)
    assert (await read(client, again))["status"] == "COMPLETED"
    await system.check_consistency()


async def read(client: httpx.AsyncClient, path: str) -> dict[str, Any]:
    answer = await client.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def events_of(system: SystemUnderTest, session: str) -> list[str]:
    """Return the last parts of a session's event types in order."""
    async with system.superuser() as connection:
        rows = await connection.fetch(
            "SELECT event_type FROM domain_events WHERE aggregate_id = $1 ORDER BY aggregate_version", session
        )
    return [row["event_type"].rpartition(".")[2] for row in rows]
