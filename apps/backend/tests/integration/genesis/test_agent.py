"""The agent at a real PostgreSQL: what becomes of a task that nobody waits for."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from backend.genesis.agent import AGENT, ConceptAgent
from backend.genesis.muse import OfflineMuse
from backend.genesis.session import genesis
from relaybox.commands import Caller, CommandService, Request
from relaybox.db import Database
from relaybox.outbox import Notifier
from relaybox.settings import TaskSettings
from relaybox.tasks import Task, TaskLost
from relaybox.tasks._store import claim_tasks
from relaybox_types.genesis import Preferences

_ORPHAN = """
INSERT INTO async_tasks (task_type, triggered_by_command_id, aggregate_id, input_data)
SELECT 'genesis.propose', command, session, jsonb_build_object('event_id', command, 'correlation_id', command,
    'request', jsonb_build_object('session_id', session, 'command_id', command, 'stage', 'CONCEPT_SELECTION',
        'request_params', $3::text::jsonb, 'confirmed_data', '{}'::jsonb, 'feedback', '[]'::jsonb))
FROM (VALUES ($1::uuid, $2::uuid)) AS given (command, session)
"""


@pytest.fixture
async def commands(database: Database) -> AsyncIterator[CommandService]:
    service = CommandService(database, [genesis], notifier=Notifier(database), source_service=AGENT)
    yield service
    await service.close()


async def abandoned(commands: CommandService) -> UUID:
    session_id, writer = uuid4(), Caller(actor="writer", source_service="test")
    for command_type in ("CreateSession", "AbandonSession"):
        creates = command_type == "CreateSession"
        command = Request(
            aggregate_id=session_id, command_type=command_type, payload={}, caller=writer, creates=creates
        )
        await commands.submit(command, domain=genesis)
    return session_id


async def orphan(database: Database, session_id: UUID) -> Task:
    """A task of a command that was withdrawn while the task was made."""
    async with database.connection() as connection:
        await connection.fetch(_ORPHAN, uuid4(), session_id, Preferences().model_dump_json())
        [task] = await claim_tasks(connection, ["genesis.propose"], tasks_max=1, lease_s=60)
    return task


async def silent(_percent: float) -> None:
    return None


async def test_g06_a_task_that_a_withdrawal_did_not_see_ends_with_its_report(
    database: Database, commands: CommandService
) -> None:
    agent = ConceptAgent(
        OfflineMuse(),
        database=database,
        commands=commands,
        notifier=Notifier(database),
        settings=TaskSettings(),
    )
    task = await orphan(database, await abandoned(commands))
    await agent._propose(task, silent)
    async with database.connection() as connection:
        [ended] = await connection.fetch("SELECT status, error_data ->> 'error_code' AS why FROM async_tasks")
    assert tuple(ended) == ("FAILED", "REPORT_SUPERSEDED")
    with pytest.raises(TaskLost):
        await agent._propose(task, silent)
