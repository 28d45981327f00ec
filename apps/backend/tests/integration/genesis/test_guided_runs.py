"""Guided runs on a real PostgreSQL: events are delivered, and due tasks run, one after the other."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from backend.genesis import GenesisSession, SessionProjection, genesis
from backend.genesis.agent import ConceptAgent
from backend.genesis.guiding import GuidedRuns
from backend.genesis.muse import Brief, Muse, MuseError, OfflineMuse, Progress
from backend.rebuilding import rebuild
from backend.settings import GenesisSettings
from prometheus_client import CollectorRegistry
from relaybox.commands import Command, CommandService
from relaybox.consumers import EventTransaction
from relaybox.db import Database
from relaybox.events import erase
from relaybox.flows import flow_subscription
from relaybox.outbox import Notifier
from relaybox.settings import TaskSettings
from relaybox.tasks import run_due_tasks
from relaybox.telemetry import CommandMetrics
from relaybox_types.envelope import EventEnvelope
from shared_types.genesis import GuidedRunStatus, Proposal
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.guided_runs import whole_run
from tests.fixtures.story import STAGES, WRITER

_PUBLISHED = "SELECT seq, payload::text AS payload FROM event_outbox WHERE seq > $1 ORDER BY seq"
_OPEN_TASKS = "SELECT task_type FROM async_tasks WHERE status IN ('PENDING', 'RUNNING')"


class BrokenMuse(Muse):
    """Fails the next requests, then proposes."""

    def __init__(self) -> None:
        self.failures_left = 0

    async def propose(self, brief: Brief, progress: Progress) -> Proposal:
        if self.failures_left:
            self.failures_left -= 1
            raise MuseError("the muse is silent")
        return await OfflineMuse().propose(brief, progress)


class Genesis:
    """The services of Genesis in this process, without Kafka."""

    def __init__(self, database: Database) -> None:
        notifier = Notifier(database)
        self.database = database
        self.muse = BrokenMuse()
        self.commands = CommandService(database, [genesis], notifier=notifier, source_service="suite")
        self.registry = CollectorRegistry()
        self.runs = GuidedRuns(
            database=database, commands=self.commands, settings=GenesisSettings(), registry=self.registry
        )
        self.agent = ConceptAgent(
            self.muse,
            database=database,
            commands=self.commands,
            notifier=notifier,
            settings=TaskSettings(),
            metrics=CommandMetrics(self.registry),
            guided_runs=self.runs,
        )
        self._delivered = 0

    async def create(self) -> UUID:
        """Create a session with a guided run, and do everything up to the first proposal."""
        session_id = uuid4()
        await self.send(session_id, "CreateSession", creates=True)
        await self.send(session_id, "StartGuidedRun")
        await self.settle()
        return session_id

    async def send(
        self, session_id: UUID, command_type: str, *, creates: bool = False, **payload: Any
    ) -> None:
        command = Command(
            aggregate_id=session_id,
            command_type=command_type,
            payload=payload,
            caller=WRITER,
            creates=creates,
        )
        await self.commands.submit(command, domain=genesis)

    async def session(self, session_id: UUID) -> GenesisSession:
        return (await self.commands.read(genesis, session_id, actor="writer")).aggregate

    async def run_status(self, session_id: UUID) -> GuidedRunStatus:
        run = (await self.session(session_id)).guided_run
        assert run is not None
        return run.status

    async def history(self, session_id: UUID) -> list[str]:
        """Return the event types of a session without their prefix."""
        query = "SELECT event_type FROM domain_events WHERE aggregate_id = $1 ORDER BY aggregate_version"
        return [row["event_type"].rpartition(".")[2] for row in await self.fetch(query, str(session_id))]

    async def settle(self) -> None:
        """Deliver events and run due tasks until nothing is left to do."""
        settings = TaskSettings(attempts_max=1)
        workers = {"genesis.propose": self.agent._propose, **self.runs.workers}
        while True:
            delivered = await self._deliver()
            runs = await run_due_tasks(
                self.database, workers, on_exhausted=self.agent._end_exhausted, settings=settings
            )
            assert [run.failure for run in runs if run.failure] == []
            if not delivered and not runs:
                return

    async def _deliver(self) -> int:
        flows = flow_subscription([self.runs.definition])
        rows = await self.fetch(_PUBLISHED, self._delivered)
        for row in rows:
            event = EventEnvelope.model_validate_json(row["payload"])
            for subscription in [*self.agent.subscriptions(), flows]:
                if event.event_type in subscription.event_types:
                    unit = (subscription, event)
                    await self.database.run_in_transaction(
                        lambda db, unit=unit: unit[0](unit[1], EventTransaction(db=db, event=unit[1]))
                    )
            self._delivered = row["seq"]
        return len(rows)

    def counts(self) -> dict[str, float | None]:
        """Return the counters of the metrics of guided runs."""
        flow = {"flow": self.runs.definition.name}
        return {
            name: self.registry.get_sample_value(f"relaybox_flows_{name}_total", flow)
            for name in ("expired", "steps_failed")
        }

    async def let_waits_expire(self) -> None:
        """End the time of every wait."""
        await self.fetch("UPDATE flow_resume_handles SET expires_at = now() WHERE status = 'PAUSED'")
        await self.fetch("UPDATE async_tasks SET not_before = now() WHERE status = 'PENDING'")

    async def fetch(self, statement: str, *arguments: Any) -> list[Any]:
        async with self.database.connection() as connection:
            return list(await connection.fetch(statement, *arguments))


@pytest.fixture
async def product(database: Database) -> AsyncIterator[Genesis]:
    product = Genesis(database)
    yield product
    await product.commands.close()


async def test_run_reacts_to_decisions_that_it_learns_late(product: Genesis) -> None:
    """The writer decides twice before the flow gets the first decision; the flow requests once."""
    session_id = await product.create()
    await product.send(session_id, "SubmitFeedback", feedback="darker")
    await product.send(session_id, "ConfirmStage", choice=0)
    await product.settle()
    assert (await product.history(session_id))[5:] == [
        *("FeedbackSubmitted", "GuidedRunUpdated", "StageConfirmed", "GuidedRunUpdated"),
        *("StageProposalRequested", "StageProposed"),
    ]
    for stage in STAGES[1:]:
        await product.send(session_id, "ConfirmStage", stage=stage.value, choice=0)
        await product.settle()
    assert await product.run_status(session_id) is GuidedRunStatus.FINISHED
    assert await product.fetch(_OPEN_TASKS) == []


async def test_all_events_of_a_run_belong_to_its_chain(product: Genesis) -> None:
    session_id = await product.create()
    query = """
        SELECT DISTINCT correlation_id FROM domain_events
        WHERE aggregate_type = 'Flow' OR (aggregate_id = $1 AND event_type NOT LIKE '%.Created')"""
    assert len(await product.fetch(query, str(session_id))) == 1
    [requested] = await product.fetch(
        "SELECT causation_id FROM domain_events WHERE event_type LIKE '%ConceptGenerationRequested'"
    )
    [start] = await product.fetch(
        "SELECT event_id FROM domain_events WHERE event_type LIKE '%.GuidedRunRequested'"
    )
    assert requested["causation_id"] == start["event_id"]


async def test_start_that_is_rolled_back_begins_no_run(product: Genesis) -> None:
    session_id = uuid4()
    await product.send(session_id, "CreateSession", creates=True)

    async def start_and_fail(db: AsyncSession) -> None:
        await product.commands.process_command(session_id, "StartGuidedRun", {}, db, caller=WRITER)
        raise RuntimeError("rolled back")

    with pytest.raises(RuntimeError, match="rolled back"):
        await product.database.run_in_transaction(start_and_fail)
    await product.settle()
    assert (await product.session(session_id)).guided_run is None
    assert await product.fetch(_OPEN_TASKS) == []
    await product.send(session_id, "StartGuidedRun")
    await product.settle()
    assert await product.run_status(session_id) is GuidedRunStatus.RUNNING


async def test_failed_proposal_is_requested_again(product: Genesis) -> None:
    product.muse.failures_left = 2
    session_id = await product.create()
    failed = ["ConceptGenerationRequested", "ConceptGenerationFailed", "GuidedRunUpdated"]
    begun = ["Created", "GuidedRunRequested", "GuidedRunCreated"]
    expected = [*begun, *failed, *failed, "ConceptGenerationRequested", "ConceptProposed"]
    assert await product.history(session_id) == expected
    assert await product.run_status(session_id) is GuidedRunStatus.RUNNING


async def test_run_fails_after_three_failed_proposals(product: Genesis) -> None:
    product.muse.failures_left = 3
    session_id = await product.create()
    assert (await product.history(session_id))[-2:] == ["GuidedRunUpdated", "GuidedRunFailed"]
    assert await product.run_status(session_id) is GuidedRunStatus.FAILED
    [event] = await product.fetch(
        "SELECT payload -> 'reason' ->> 'error_code' AS code FROM domain_events"
        " WHERE event_type LIKE '%.GuidedRunFailed'"
    )
    assert event["code"] == "PROPOSALS_FAILED"
    await product.send(session_id, "StartGuidedRun")
    await product.settle()
    assert (await product.history(session_id))[-1] == "ConceptProposed"


async def test_run_whose_flow_gives_up_fails_and_frees_the_session(product: Genesis) -> None:
    session_id = await product.create()
    await product.fetch("UPDATE async_tasks SET attempts = 9 WHERE status = 'PENDING'")
    await product.send(session_id, "ConfirmStage", choice=0)
    await product.settle()
    assert await product.run_status(session_id) is GuidedRunStatus.FAILED
    [task] = await product.fetch("SELECT status FROM async_tasks WHERE task_type LIKE '%guided-run%'")
    assert task["status"] == "FAILED"
    await product.send(session_id, "StartGuidedRun")


async def test_run_whose_request_is_parked_fails(product: Genesis) -> None:
    session_id = uuid4()
    await product.send(session_id, "CreateSession", creates=True)
    await product.send(session_id, "StartGuidedRun")
    [row] = await product.fetch(_PUBLISHED + " OFFSET 1", 0)
    event = EventEnvelope.model_validate_json(row["payload"])
    parked = product.agent.subscriptions()[1].on_parked
    assert parked is not None
    for _ in range(2):  # a run that has ended stays as it is
        await product.database.run_in_transaction(
            lambda db: parked(event, RuntimeError(), EventTransaction(db=db, event=event))
        )
    assert await product.history(session_id) == ["Created", "GuidedRunRequested", "GuidedRunFailed"]
    await product.settle()
    assert await product.fetch(_OPEN_TASKS) == []


async def test_expired_waits_and_failed_steps_of_runs_are_counted(product: Genesis) -> None:
    session_id = await product.create()
    counted = {"expired": 0, "steps_failed": 0}
    assert product.counts() == counted
    await product.let_waits_expire()
    await product.settle()
    assert product.counts() == counted | {"expired": 1}
    await product.fetch("UPDATE flow_steps SET name = 'other' WHERE position = 0")
    await product.send(session_id, "SubmitFeedback", feedback="darker")
    with pytest.raises(AssertionError, match="FlowChanged"):
        await product.settle()
    assert product.counts() == {"expired": 1, "steps_failed": 1}


async def test_flow_of_an_erased_session_ends_and_records_nothing(product: Genesis) -> None:
    session_id = await product.create()
    before = len(await product.history(session_id))
    await product.database.run_in_transaction(
        lambda db: erase(db, "GENESIS_SESSION", [str(session_id)], actor="ann", reason="asked"),
        isolation="READ COMMITTED",
    )
    assert (await product.session(session_id)).guided_run is None
    await product.let_waits_expire()
    await product.settle()
    assert await product.fetch(_OPEN_TASKS) == []
    assert len(await product.history(session_id)) == before


async def test_rebuild_restores_the_run_of_a_session(product: Genesis) -> None:
    session_id = await product.create()
    before = await product.session(session_id)
    report = await rebuild(product.database, SessionProjection(), write=False, on_difference=print)
    assert report.differences == 0
    await product.fetch("UPDATE genesis_sessions SET guided_run = NULL WHERE id = $1", session_id)
    report = await rebuild(product.database, SessionProjection(), write=True, on_difference=print)
    assert report.repaired == 1
    assert await product.session(session_id) == before


async def test_whole_run_records_the_same_events_as_over_http(product: Genesis) -> None:
    session_id = await product.create()
    for stage in STAGES:
        await product.send(session_id, "ConfirmStage", stage=stage.value, choice=0)
        await product.settle()
    assert await product.history(session_id) == whole_run()
    [task] = await product.fetch(
        "SELECT status, result_data ->> 'status' AS run FROM async_tasks WHERE task_type LIKE '%guided-run%'"
    )
    assert tuple(task) == ("COMPLETED", "FINISHED")
