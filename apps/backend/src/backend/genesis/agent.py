"""The concept agent: consumes requests for proposals, and reports the proposals of a muse.

The consumer only creates a task, in the transaction that records the event as consumed. A task runner runs
the task under a lease, so that another agent takes over the tasks of a killed agent (G06). The task ends with
a report: an internal command, which the session refuses if the request is no longer pending.

If the consumer parks a request as a dead letter, the request fails in the same transaction. A replay of the
dead letter then creates no task, because the request is no longer pending.
"""

from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import structlog
from relaybox.commands import Caller, Command, CommandService
from relaybox.consumers import EventTransaction, Subscription, subscribe
from relaybox.db import Database, executor_of
from relaybox.errors import RelayboxError
from relaybox.outbox import Notifier
from relaybox.settings import TaskSettings
from relaybox.tasks import Progress, Task, TaskRunner, create_task, fail_task
from relaybox.telemetry import CommandMetrics
from relaybox_types.envelope import EventEnvelope

from backend.genesis._errors import ReportSuperseded
from backend.genesis._events import CONCEPT_GENERATION_REQUESTED, STAGE_PROPOSAL_REQUESTED
from backend.genesis.guiding import GuidedRuns
from backend.genesis.muse import Brief, Muse, MuseError
from backend.genesis.session import ProposalRequest, ReportFailure, ReportProposal, genesis

__all__ = ("AGENT", "ConceptAgent")

AGENT: Final = "concept-agent"
_TASK_TYPE: Final = "genesis.propose"
#: Maximum length of the field message of ReportFailure.
_REASON_CHARACTERS_MAX: Final = 4_000
_PARKED: Final = (
    "the agent could not process the request, which is now a dead letter for operators; request it again"
)
_log = structlog.get_logger(__name__)


class ConceptAgent:
    """Produces proposals for requests. Any number of processes can run an agent; they share the requests.

    The service runs :meth:`subscriptions` in a Consumer, which creates a task for each request, and
    :attr:`runner`, which works on these tasks and on the flows of guided runs.
    """

    def __init__(
        self,
        muse: Muse,
        *,
        database: Database,
        commands: CommandService,
        notifier: Notifier,
        settings: TaskSettings,
        metrics: CommandMetrics,
        guided_runs: GuidedRuns,
    ) -> None:
        self._muse = muse
        self._database = database
        self._commands = commands
        self._notifier = notifier
        self._metrics = metrics
        self._guided_runs = guided_runs
        self.runner = TaskRunner(
            database,
            {_TASK_TYPE: self._propose, **guided_runs.workers},
            on_exhausted=self._end_exhausted,
            on_progress=self._notify_progress,
            settings=settings,
            listens=True,
        )

    def __repr__(self) -> str:
        return f"<ConceptAgent [{self.runner!r}]>"

    def subscriptions(self) -> list[Subscription]:
        """Return two subscriptions: to requests for proposals, and to requests for guided runs.

        The handlers create a task for each request for a proposal, and a flow for each guided run.
        """
        return [self._requests(), self._guided_runs.subscription(AGENT, self.runner.wake)]

    def _requests(self) -> Subscription:

        # Requests are independent: a parked request must not block the next request of its session.
        @subscribe(
            CONCEPT_GENERATION_REQUESTED,
            STAGE_PROPOSAL_REQUESTED,
            group=AGENT,
            order="none",
            on_parked=self._report_parked,
        )
        async def take_request(event: EventEnvelope, unit: EventTransaction) -> None:
            if event.erased:
                _log.info("request erased; no task created", session_id=event.aggregate_id)
                return
            request = ProposalRequest.model_validate(event.payload)
            task_id = await create_task(
                executor_of(unit.db),
                task_type=_TASK_TYPE,
                command_id=request.command_id,
                aggregate_id=request.session_id,
                input_data={
                    "request": request.model_dump(mode="json"),
                    "event_id": event.event_id,
                    "correlation_id": event.correlation_id,
                },
            )
            if task_id is None:
                _log.info("request is not pending; no task created", command_id=str(request.command_id))
                return
            unit.after_commit(self.runner.wake)

        return take_request

    async def _report_parked(
        self, event: EventEnvelope, _failure: BaseException, unit: EventTransaction
    ) -> None:
        """Report the failure of a request in the transaction that parks the request."""
        if event.erased:
            return
        command_id = event.payload.get("command_id")
        payload = {"command_id": command_id, "error_code": "REQUEST_PARKED", "message": _PARKED}
        caller = Caller.following(event, service=AGENT)
        try:
            await self._commands.process_command(
                UUID(event.aggregate_id), ReportFailure.__name__, payload, unit.db, caller=caller
            )
        except ReportSuperseded:
            _log.info("parked request is not pending", command_id=command_id)

    async def _propose(self, task: Task, progress: Progress) -> None:
        request = ProposalRequest.model_validate(task.input_data["request"])
        brief = Brief(
            stage=request.stage,
            preferences=request.request_params,
            confirmed=request.confirmed_data,
            feedback=request.feedback,
            seed=str(request.command_id),
        )
        try:
            proposal = await self._muse.propose(brief, progress)
        except MuseError as error:
            _log.warning("muse failed", error_code=error.error_code)
            await self._report_failure(task, error.error_code, str(error))
            return
        payload = {"command_id": str(request.command_id), "proposal": proposal.model_dump(mode="json")}
        await self._report(task, ReportProposal.__name__, payload)

    async def _end_exhausted(self, task: Task) -> None:
        if task.task_type in self._guided_runs.workers:
            await self._guided_runs.park(task)
        else:
            await self._report_exhausted(task)

    async def _report_exhausted(self, task: Task) -> None:
        message = f"the request was attempted {task.attempts - 1} times without a result; request it again"
        await self._report_failure(task, "AGENT_GAVE_UP", message)

    async def _report_failure(self, task: Task, error_code: str, message: str) -> None:
        payload = {
            "command_id": str(task.command_id),
            "error_code": error_code,
            "message": _storable_message(message),
        }
        await self._report(task, ReportFailure.__name__, payload)

    async def _report(self, task: Task, command_type: str, payload: dict[str, Any]) -> None:
        """Send a report as an internal command, whose transaction also ends the task.

        Raises:
            TaskLost: The session refused the report, and the task has ended or another agent has taken it
                over.
        """
        assert task.aggregate_id is not None
        command = Command(
            aggregate_id=task.aggregate_id,
            command_type=command_type,
            payload=payload,
            caller=Caller(
                actor=AGENT,
                source_service=AGENT,
                internal=True,
                correlation_id=UUID(task.input_data["correlation_id"]),
                causation_id=UUID(task.input_data["event_id"]),
            ),
        )
        try:
            await self._submit(command)
        except ReportSuperseded as superseded:
            _log.info("report superseded", command_id=str(task.command_id))
            # AbandonSession cancels the task, but not a task that another transaction is creating at that
            # moment. Fail such a task here, because it would be retried endlessly.
            error = {"error_code": superseded.error_code, "message": str(superseded)}
            async with self._database.connection() as connection:
                await fail_task(connection, task.fence, error=error)

    async def _submit(self, command: Command) -> None:
        """Submit an internal command and count its outcome, as the API does for commands of clients."""
        try:
            result = await self._commands.submit(command, domain=genesis)
        except RelayboxError as error:
            self._metrics.record_command(command_type=command.command_type, outcome=error.error_code)
            raise
        self._metrics.record_command(command_type=command.command_type, outcome=result.status)

    def _notify_progress(self, task: Task, _percent: Decimal) -> None:
        self._notifier.notify([str(task.aggregate_id)])


def _storable_message(message: str) -> str:
    """Return *message* in a form that ReportFailure accepts, at most 4,000 characters.

    If the session refused the report because of its message, the request would stay pending. The message may
    contain the text of a model's endpoint, which may be too long, blank, or contain characters that
    PostgreSQL or UTF-8 cannot represent.
    """
    readable = message.replace("\0", "\ufffd").encode(errors="replace").decode().strip()
    return readable[:_REASON_CHARACTERS_MAX] or "the muse gave no reason; request it again"
