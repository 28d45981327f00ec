"""Guided runs: a flow requests the proposals of a session, one stage after the other.

Each time the flow continues, it reads the session and does what the session needs now: report that the run
has begun, request a proposal, or report the end. Then the flow waits for GuidedRunUpdated, an event that
every decision of the writer and every failed proposal records. The flow decides from the state of the
session, and not from the events. So it makes no difference how many events arrive between two steps.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any, Final
from uuid import UUID

import structlog
from prometheus_client import CollectorRegistry
from pydantic import BaseModel
from relaybox.commands import Caller, CommandError, CommandService
from relaybox.consumers import EventTransaction, Subscription, subscribe
from relaybox.db import Database, executor_of
from relaybox.flows import Flow, FlowExpired, FlowMetrics, flow, flow_workers, park_flow, start_flow
from relaybox.tasks import Task, Worker
from relaybox_types.envelope import EventEnvelope
from shared_types.genesis import (
    GenesisStage,
    GenesisStatus,
    GuidedRunStatus,
    RequestConceptGeneration,
    RequestStageProposal,
)
from sqlalchemy.ext.asyncio import AsyncSession

from backend.genesis._events import GUIDED_RUN_REQUESTED, GUIDED_RUN_UPDATED, SQL
from backend.genesis._run_deciders import ReportGuidedRun, RunFailure
from backend.genesis._state import GenesisSession, GuidedRun
from backend.settings import GenesisSettings

__all__ = ("GuidedRuns",)

_SERVICE: Final = "guided-run"
_READ: Final = SQL.including("read", load=SQL["load"])
#: Failed proposals in a row after which a run fails.
_FAILURES_MAX: Final = 3
#: The timeout of the flow's wait if the run has expired: the timeout of a wait must be positive.
_WAIT_MIN: Final = timedelta(milliseconds=1)
_STEP_FAILED: Final = RunFailure(
    error_code="FLOW_STEP_FAILED",
    message="the flow of the run failed on every attempt; start another run",
)
_PROPOSALS_FAILED: Final = RunFailure(
    error_code="PROPOSALS_FAILED",
    message=f"{_FAILURES_MAX} proposals in a row failed; write the stage yourself, or start another run",
)
_log: Final = structlog.get_logger(__name__)


class GuidedRuns:
    """Runs the flows of guided runs. Any number of processes can have such an object; they share the runs.

    The service runs :meth:`subscription` and ``flow_subscription([definition])`` in Consumers, gives
    :attr:`workers` and :meth:`park` to a TaskRunner, and runs :attr:`metrics`, which measures the flows.
    """

    def __init__(
        self,
        *,
        database: Database,
        commands: CommandService,
        settings: GenesisSettings,
        registry: CollectorRegistry,
    ) -> None:
        """Register the metrics of the flows in *registry*."""
        self._database = database
        self._commands = commands
        self._limit = timedelta(hours=settings.guided_run_h)
        self.definition = flow("genesis.guided-run", event_types=[GUIDED_RUN_UPDATED.name])(self._guide)
        self.metrics = FlowMetrics(database, [self.definition], registry)
        self.workers: Mapping[str, Worker] = flow_workers(database, [self.definition], metrics=self.metrics)

    def subscription(self, group: str, wake: Callable[[], None]) -> Subscription:
        """Return the subscription of *group* that starts flows of requested runs, and then calls *wake*."""

        @subscribe(GUIDED_RUN_REQUESTED, group=group, order="none", on_parked=self._fail_parked)
        async def start(event: EventEnvelope, unit: EventTransaction) -> None:
            if event.erased:
                return
            arguments = {
                "session_id": event.aggregate_id,
                "event_id": str(event.event_id),
                "expires_at": (event.timestamp + self._limit).isoformat(),
            }
            run_id = UUID(event.payload["run_id"])
            await start_flow(
                unit.db, self.definition, arguments, flow_id=run_id, chain_id=event.correlation_id
            )
            unit.after_commit(wake)

        return start

    async def park(self, task: Task) -> None:
        """End a run as FAILED, and end its flow, because a step of the flow failed on every attempt.

        Args:
            task: The task of the flow; its id is the id of the run.
        """
        arguments, chain_id = task.input_data["arguments"], UUID(task.input_data["chain_id"])
        caller = _caller(chain_id, UUID(arguments["event_id"]))

        await self._database.run_in_transaction(
            lambda db: self._fail(db, UUID(arguments["session_id"]), task.id, caller)
        )
        await park_flow(self._database, task)

    async def _fail_parked(self, event: EventEnvelope, _: BaseException, unit: EventTransaction) -> None:
        """Report a guided run as FAILED in the transaction that parks the request of the run."""
        if not event.erased:
            caller = _caller(event.correlation_id, event.event_id)
            await self._fail(unit.db, UUID(event.aggregate_id), UUID(event.payload["run_id"]), caller)

    async def _fail(self, db: AsyncSession, session_id: UUID, run_id: UUID, caller: Caller) -> None:
        report = ReportGuidedRun(run_id=run_id, status=GuidedRunStatus.FAILED, reason=_STEP_FAILED)
        try:
            await self._send(db, session_id, report, caller)
        except CommandError as error:
            _log.info("guided run has ended before", run_id=str(run_id), error_code=error.error_code)

    async def _guide(self, current: Flow, arguments: dict[str, Any]) -> dict[str, Any]:
        session_id, cause = UUID(arguments["session_id"]), UUID(arguments["event_id"])
        expires_at = datetime.fromisoformat(arguments["expires_at"])
        for number in count(1):
            caller = _caller(current.chain_id, cause)
            lead = partial(self._lead, session_id, current.id, expires_at, caller)
            if (status := await current.step(f"lead {number}", lead)) is not None:
                return {"status": status}
            timeout = max(expires_at - datetime.now(UTC), _WAIT_MIN)
            name = f"decision {number}"
            with suppress(FlowExpired):
                event = await current.wait_for(
                    GUIDED_RUN_UPDATED.name, str(session_id), timeout=timeout, name=name
                )
                cause = event.event_id
        raise AssertionError("unreachable")

    async def _lead(
        self, session_id: UUID, run_id: UUID, expires_at: datetime, caller: Caller, db: AsyncSession
    ) -> str | None:
        """Do what the session needs now. Return the status of the run if the run has ended, else None."""
        rows = await executor_of(db).fetch(_READ, [session_id])
        session = GenesisSession.model_validate_json(rows[0]["state"]) if rows else None
        run = session and session.guided_run
        if session is None or run is None or run.run_id != run_id:  # such as that of an erased session
            return GuidedRunStatus.STOPPED
        if not run.active:
            return run.status
        if run.status is GuidedRunStatus.REQUESTED:
            report = ReportGuidedRun(run_id=run_id, status=GuidedRunStatus.RUNNING, expires_at=expires_at)
            await self._send(db, session_id, report, caller)
        if end := _end_of(session, run, expired=datetime.now(UTC) >= expires_at):
            await self._send(db, session_id, end, caller)
            return end.status
        if run.request_due and session.pending is None:
            first = session.current_stage is GenesisStage.CONCEPT_SELECTION
            request = RequestConceptGeneration() if first else RequestStageProposal()
            await self._send(db, session_id, request, caller)
        return None

    async def _send(self, db: AsyncSession, session_id: UUID, command: BaseModel, caller: Caller) -> None:
        payload = command.model_dump(mode="json", exclude_unset=True)
        await self._commands.process_command(session_id, type(command).__name__, payload, db, caller=caller)


def _end_of(session: GenesisSession, run: GuidedRun, *, expired: bool) -> ReportGuidedRun | None:
    """Return the report that ends the run; None if the run continues."""
    if session.status is GenesisStatus.COMPLETED:
        return ReportGuidedRun(run_id=run.run_id, status=GuidedRunStatus.FINISHED)
    if run.failures >= _FAILURES_MAX:
        return ReportGuidedRun(run_id=run.run_id, status=GuidedRunStatus.FAILED, reason=_PROPOSALS_FAILED)
    return ReportGuidedRun(run_id=run.run_id, status=GuidedRunStatus.EXPIRED) if expired else None


def _caller(chain_id: UUID, cause: UUID) -> Caller:
    return Caller(
        actor=_SERVICE, source_service=_SERVICE, internal=True, correlation_id=chain_id, causation_id=cause
    )
