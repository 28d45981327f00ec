"""The agent at a real PostgreSQL: what becomes of a task that nobody waits for."""

from uuid import uuid4

import pytest
from backend.genesis.agent import AGENT, ConceptAgent
from backend.genesis.muse import OfflineMuse
from backend.genesis.session import genesis
from relaybox.commands import Caller, CommandService, Request
from relaybox.db import Database
from relaybox.outbox import Notifier
from relaybox.settings import TaskSettings
from relaybox.tasks import Task, TaskLost
from relaybox_types.genesis import Preferences


async def test_g06_a_task_that_a_withdrawal_did_not_see_ends_with_its_first_report(
    database: Database,
) -> None:
    notifier = Notifier(database)
    commands = CommandService(database, [genesis], notifier=notifier, source_service=AGENT)
    agent = ConceptAgent(
        OfflineMuse(), database=database, commands=commands, notifier=notifier, settings=TaskSettings()
    )
    session_id, command_id = uuid4(), uuid4()
    writer = Caller(actor="writer", source_service="test")
    create = Request(
        aggregate_id=session_id, command_type="CreateSession", payload={}, caller=writer, creates=True
    )
    await commands.submit(create, domain=genesis)
    abandon = Request(aggregate_id=session_id, command_type="AbandonSession", payload={}, caller=writer)
    await commands.submit(abandon, domain=genesis)
    async with database.connection() as connection:
        [row] = await connection.fetch(
            """
            INSERT INTO async_tasks (task_type, triggered_by_command_id, aggregate_id, status, attempts,
                lease_until, lease_token)
            VALUES ('genesis.propose', $1, $2, 'RUNNING', 1, now() + interval '1 min', gen_random_uuid())
            RETURNING id, lease_token, progress
            """,
            command_id,
            session_id,
        )
    request = {
        "session_id": str(session_id),
        "command_id": str(command_id),
        "stage": "CONCEPT_SELECTION",
        "request_params": Preferences().model_dump(mode="json"),
        "confirmed_data": {},
        "feedback": [],
    }
    task = Task(
        id=row["id"],
        task_type="genesis.propose",
        command_id=command_id,
        aggregate_id=session_id,
        input_data={"request": request, "event_id": str(uuid4()), "correlation_id": str(uuid4())},
        progress=row["progress"],
        attempts=1,
        lease_token=row["lease_token"],
    )

    async def silent(_percent: float) -> None:
        return None

    await agent._propose(task, silent)
    async with database.connection() as connection:
        [ended] = await connection.fetch("SELECT status, error_data ->> 'error_code' AS why FROM async_tasks")
    assert tuple(ended) == ("FAILED", "REPORT_SUPERSEDED")
    with pytest.raises(TaskLost):
        await agent._propose(task, silent)
