"""The concept agent: hears requests, asks the muse, reports what came of it.

Hearing a request only makes a task of it, in the transaction of the event. The task is worked on
under a lease, so that a killed agent's work is taken over (G06), and ends with a report: a command
like any other, refused when nobody waits for it any more.
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
from backend.genesis.muse import Brief, Muse, MuseError
from backend.genesis.session import (
    CONCEPT_GENERATION_REQUESTED,
    STAGE_PROPOSAL_REQUESTED,
    ProposalRequest,
    ReportFailure,
    ReportProposal,
    genesis,
)

__all__ = ("AGENT", "ConceptAgent")

AGENT: Final = "concept-agent"
_TASK_TYPE: Final = "genesis.propose"
#: What ReportFailure takes at the most; its model refuses more.
_REASON_CHARACTERS_MAX: Final = 4_000
_log = structlog.get_logger(__name__)


class ConceptAgent:
    """Turns requests into proposals; any number of agents share the work."""

    def __init__(
        self,
        muse: Muse,
        *,
        database: Database,
        commands: CommandService,
        notifier: Notifier,
        settings: TaskSettings,
        metrics: CommandMetrics,
    ) -> None:
        self._muse = muse
        self._database = database
        self._commands = commands
        self._notifier = notifier
        self._metrics = metrics
        self.runner = TaskRunner(
            database,
            {_TASK_TYPE: self._propose},
            on_exhausted=self._report_exhausted,
            on_progress=self._notify_progress,
            settings=settings,
        )

    def __repr__(self) -> str:
        return f"<ConceptAgent [{self.runner!r}]>"

    def subscription(self) -> Subscription:
        """What the agent hears."""

        @subscribe(CONCEPT_GENERATION_REQUESTED.name, STAGE_PROPOSAL_REQUESTED.name, group=AGENT)
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
                _log.info("nobody waits for this request any more", command_id=str(request.command_id))
                return
            unit.after_commit(self.runner.wake)

        return take_request

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
            _log.warning("the muse failed", error_code=error.error_code)
            await self._report_failure(task, error.error_code, str(error))
            return
        payload = {"command_id": str(request.command_id), "proposal": proposal.model_dump(mode="json")}
        await self._report(task, ReportProposal.__name__, payload)

    async def _report_exhausted(self, task: Task) -> None:
        message = f"the request was tried {task.attempts - 1} times and never ended; request it again"
        await self._report_failure(task, "AGENT_GAVE_UP", message)

    async def _report_failure(self, task: Task, error_code: str, message: str) -> None:
        payload = {
            "command_id": str(task.command_id),
            "error_code": error_code,
            "message": _storable_message(message),
        }
        await self._report(task, ReportFailure.__name__, payload)

    async def _report(self, task: Task, command_type: str, payload: dict[str, Any]) -> None:
        """Report in the one transaction that also ends the task.

        Raises:
            TaskLost: nobody waits for the report any more, and the task has ended already.
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
            # A withdrawal that met the making of the task did not see it: it would be tried for ever.
            error = {"error_code": superseded.error_code, "message": str(superseded)}
            async with self._database.connection() as connection:
                await fail_task(connection, task.fence, error=error)

    async def _submit(self, command: Command) -> None:
        """Submit one of our own commands and count how it ended, as the API does with a client's."""
        try:
            result = await self._commands.submit(command, domain=genesis)
        except RelayboxError as error:
            self._metrics.record_command(command_type=command.command_type, outcome=error.error_code)
            raise
        self._metrics.record_command(command_type=command.command_type, outcome=result.status)

    def _notify_progress(self, task: Task, _percent: Decimal) -> None:
        self._notifier.notify([str(task.aggregate_id)])


def _storable_message(message: str) -> str:
    """*message* as ReportFailure takes it; a report that is refused would leave the session waiting.

    An endpoint's words may be part of it: too long, nothing but blanks, or with characters that
    PostgreSQL or UTF-8 cannot hold.
    """
    readable = message.replace("\0", "\ufffd").encode(errors="replace").decode().strip()
    return readable[:_REASON_CHARACTERS_MAX] or "the muse gave no reason; request it again"
