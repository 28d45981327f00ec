"""The agent with a real PostgreSQL: its reports, and tasks of commands that are no longer pending."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from backend.genesis.agent import AGENT, ConceptAgent
from backend.genesis.guiding import GuidedRuns
from backend.genesis.muse import OfflineMuse
from backend.genesis.session import genesis
from backend.settings import GenesisSettings
from prometheus_client import CollectorRegistry
from relaybox.commands import Caller, Command, CommandService
from relaybox.consumers import Consumer, ConsumerSignal, EventTransaction
from relaybox.db import Database
from relaybox.outbox import Notifier
from relaybox.settings import KafkaSettings, TaskSettings
from relaybox.tasks import Task, TaskLost
from relaybox.tasks._store import claim_tasks
from relaybox.telemetry import CommandMetrics
from relaybox_types.envelope import EventEnvelope
from shared_types.genesis import Preferences

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import publish
from tests.fixtures.signal_recorder import SignalRecorder

_TASK = """
INSERT INTO async_tasks (task_type, triggered_by_command_id, aggregate_id, input_data)
SELECT 'genesis.propose', command, session, jsonb_build_object('event_id', command, 'correlation_id', command,
    'request', jsonb_build_object('session_id', session, 'command_id', command, 'stage', 'CONCEPT_SELECTION',
        'request_params', $3::text::jsonb, 'confirmed_data', '{}'::jsonb, 'feedback', '[]'::jsonb))
FROM (VALUES ($1::uuid, $2::uuid)) AS given (command, session)
"""
_STATUS = "SELECT status, error_data ->> 'error_code' AS why FROM command_inbox WHERE id = $1"
_LAST_REQUEST = """
SELECT payload::text AS payload FROM event_outbox
WHERE payload ->> 'aggregate_id' = $1
    AND payload ->> 'event_type' = 'Genesis.Session.ConceptGenerationRequested'
ORDER BY seq DESC LIMIT 1
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
        guided_runs=GuidedRuns(
            database=database, commands=commands, settings=GenesisSettings(), registry=figures
        ),
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


async def test_parked_request_fails_and_its_replay_creates_no_task(
    database: Database,
    commands: CommandService,
    agent: ConceptAgent,
    kafka_settings: KafkaSettings,
    topic: str,
) -> None:
    session_id, command_id = await session_after(commands, "RequestConceptGeneration")
    poisoned = await requested(database, session_id)
    poison = {poisoned.event_id}
    async with consumer_of(agent, poison, database, kafka_settings, topic) as signals:
        publish(kafka_settings, topic, [poisoned])
        await signals.wait_for(ConsumerSignal.PARKED)
        [failed] = await fetch(database, _STATUS, command_id)
        assert tuple(failed) == ("FAILED", "REQUEST_PARKED")
        again = await request_again(commands, session_id)
        publish(kafka_settings, topic, [await requested(database, session_id)])
        await signals.wait_for(ConsumerSignal.COMMITTED)
        poison.clear()
        await fetch(database, "UPDATE dead_letters SET status = 'REPLAY_REQUESTED'")
        await signals.wait_for(ConsumerSignal.REPLAYED)
    async with database.connection() as connection:
        [task] = await claim_tasks(connection, ["genesis.propose"], tasks_max=2, lease_s=60)
    assert task.command_id == again
    await agent._propose(task, silent)
    [completed] = await fetch(database, _STATUS, again)
    assert tuple(completed) == ("COMPLETED", None)


@asynccontextmanager
async def consumer_of(
    agent: ConceptAgent, poison: set[UUID], database: Database, settings: KafkaSettings, topic: str
) -> AsyncIterator[SignalRecorder]:
    """Run the agent's consumer, whose handler fails for the events in *poison*."""
    signals, taken = SignalRecorder(), agent.subscriptions()[0]

    async def handle(event: EventEnvelope, unit: EventTransaction) -> None:
        if event.event_id in poison:
            raise RuntimeError("poison")
        await taken.handler(event, unit)

    subscriptions = [replace(taken, handler=handle)]
    consumer = Consumer(database, settings, subscriptions, topics=[topic], on_signal=signals)
    work = asyncio.create_task(consumer.run())
    try:
        await signals.wait_for(ConsumerSignal.ASSIGNED)
        yield signals
    finally:
        consumer.stop()
        await asyncio.wait([work], timeout=WAIT_S)


async def request_again(commands: CommandService, session_id: UUID) -> UUID:
    """Request another proposal; return the id of the command."""
    command = Command(
        aggregate_id=session_id,
        command_type="RequestConceptGeneration",
        payload={},
        caller=Caller(actor="writer", source_service="test"),
    )
    await commands.submit(command, domain=genesis)
    return command.command_id


async def requested(database: Database, session_id: UUID) -> EventEnvelope:
    """Return the session's last request as the relay publishes it."""
    [row] = await fetch(database, _LAST_REQUEST, str(session_id))
    return EventEnvelope.model_validate_json(row["payload"])


async def fetch(database: Database, statement: str, *arguments: Any) -> list[Any]:
    async with database.connection() as connection:
        return list(await connection.fetch(statement, *arguments))
