"""The agent with a real PostgreSQL: its reports, and tasks of commands that are no longer pending."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import pytest
from backend.genesis.agent import AGENT, ConceptAgent
from backend.genesis.muse import OfflineMuse
from backend.genesis.session import genesis
from prometheus_client import CollectorRegistry
from relaybox.commands import Caller, Command, CommandService
from relaybox.db import Database
from relaybox.outbox import Notifier
from relaybox.settings import TaskSettings
from relaybox.tasks import Task, TaskLost
from relaybox.tasks._store import claim_tasks
from relaybox.telemetry import CommandMetrics
from shared_types.genesis import Preferences

_TASK = """
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


@pytest.fixture
def figures() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def agent(database: Database, commands: CommandService, figures: CollectorRegistry) -> ConceptAgent:
    return ConceptAgent(
        OfflineMuse(),
        database=database,
        commands=commands,
        notifier=Notifier(database),
        settings=TaskSettings(),
        metrics=CommandMetrics(figures),
    )


async def session_after(commands: CommandService, command_type: str) -> tuple[UUID, UUID]:
    """Return a session whose second command has *command_type*, and the id of that command."""
    session_id, writer = uuid4(), Caller(actor="writer", source_service="test")
    command_id = uuid4()
    for each in ("CreateSession", command_type):
        command = Command(
            aggregate_id=session_id,
            command_type=each,
            payload={},
            caller=writer,
            creates=each == "CreateSession",
            command_id=uuid4() if each == "CreateSession" else command_id,
        )
        await commands.submit(command, domain=genesis)
    return session_id, command_id


async def task_of(database: Database, session_id: UUID, command_id: UUID) -> Task:
    async with database.connection() as connection:
        await connection.fetch(_TASK, command_id, session_id, Preferences().model_dump_json())
        [task] = await claim_tasks(connection, ["genesis.propose"], tasks_max=1, lease_s=60)
    return task


async def silent(_percent: float) -> None:
    return None


def counted(figures: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Return the number of commands by type and outcome."""
    return {
        (sample.labels["command_type"], sample.labels["outcome"]): sample.value
        for metric in figures.collect()
        for sample in metric.samples
        if sample.name == "relaybox_commands_total"
    }


@pytest.mark.guarantee("G06")
async def test_task_created_during_a_withdrawal_ends_with_its_report(
    database: Database, commands: CommandService, agent: ConceptAgent, figures: CollectorRegistry
) -> None:
    session_id, _ = await session_after(commands, "AbandonSession")
    # The command was withdrawn while the task was created.
    task = await task_of(database, session_id, uuid4())
    await agent._propose(task, silent)
    async with database.connection() as connection:
        [ended] = await connection.fetch("SELECT status, error_data ->> 'error_code' AS why FROM async_tasks")
    assert tuple(ended) == ("FAILED", "REPORT_SUPERSEDED")
    assert counted(figures) == {("ReportProposal", "REPORT_SUPERSEDED"): 1}
    with pytest.raises(TaskLost):
        await agent._propose(task, silent)


async def test_proposal_is_counted_as_an_ended_command(
    database: Database, commands: CommandService, agent: ConceptAgent, figures: CollectorRegistry
) -> None:
    task = await task_of(database, *await session_after(commands, "RequestConceptGeneration"))
    await agent._propose(task, silent)
    assert counted(figures) == {("ReportProposal", "COMPLETED"): 1}


async def test_failure_is_counted_as_an_ended_command(
    database: Database, commands: CommandService, agent: ConceptAgent, figures: CollectorRegistry
) -> None:
    task = await task_of(database, *await session_after(commands, "RequestConceptGeneration"))
    await agent._report_exhausted(task)
    assert counted(figures) == {("ReportFailure", "COMPLETED"): 1}
