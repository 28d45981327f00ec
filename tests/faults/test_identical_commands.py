"""64 identical asynchronous commands at once, over sockets, at an API of two processes."""

import asyncio
from collections import Counter

import httpx2 as httpx
import pytest

from tests.fixtures.api_commands import SESSIONS, create_session
from tests.fixtures.service_processes import API
from tests.fixtures.system_under_test import SystemUnderTest

AT_ONCE = 64


@pytest.mark.guarantee("G03")
@pytest.mark.parametrize(
    "rounds", [3, pytest.param(500, marks=[pytest.mark.long, pytest.mark.timeout(1_800)])]
)
async def test_one_of_64_identical_commands_is_accepted_and_named_to_others(
    system: SystemUnderTest, rounds: int
) -> None:
    """No agent runs, so the first command stays pending; each round has a new session."""
    if API not in system.services.running():
        await system.services.start(API, API_WORKERS="2")
    async with system.client(connections=AT_ONCE) as client:
        for number in range(rounds):
            await one_round(client, number)
    async with system.superuser() as connection:
        inbox = await connection.fetch("SELECT id, session_id, command_type FROM command_inbox")
        requested = await connection.fetch(
            "SELECT count(*) AS count FROM domain_events"
            " WHERE event_type = 'Genesis.Session.ConceptGenerationRequested' GROUP BY aggregate_id"
        )
    assert system.sent.differences(inbox) == []
    assert {row["count"] for row in requested} == {1}


async def one_round(client: httpx.AsyncClient, number: int) -> None:
    session = await create_session(client)
    body = {"command_type": "RequestConceptGeneration", "payload": {}}
    path = f"{SESSIONS}/{session}/commands"
    answers = await asyncio.gather(*(client.post(path, json=body) for _ in range(AT_ONCE)))
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses == {202: 1, 409: AT_ONCE - 1}, f"round {number}: {statuses}"
    taken = next(answer.json()["command_id"] for answer in answers if answer.status_code == 202)
    refused = [answer.json() for answer in answers if answer.status_code == 409]
    assert {one["duplicate_command_id"] for one in refused} == {taken}
    assert {one["error_code"] for one in refused} == {"DUPLICATE_COMMAND"}
