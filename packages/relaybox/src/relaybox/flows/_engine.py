"""Relaybox's own engine: a flow is a task, and no runner holds the task while the flow waits.

Each time a flow continues, the engine calls the flow's function from its start; such a call is a *run*. A
step that an earlier run has recorded returns the recorded result and takes no effect again. So the function
must call the same steps in the same order in each run. Whatever may give another result in the next run
belongs in a step: reading the clock, drawing a random number, calling another service.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json
from relaybox_types.enums import CommandStatus
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.commands import settle_command
from relaybox.consumers import EventTransaction, Subscription, subscribe
from relaybox.db import Database, executor_of, load_queries, map_database_errors
from relaybox.flows._definition import FlowDefinition
from relaybox.flows._errors import FlowCancelled, FlowExpired, FlowInvalid
from relaybox.flows._flow import Flow
from relaybox.flows._guard import Suspended
from relaybox.flows._handles import cancel, expire_handles, record_resumes
from relaybox.flows._joint import JointCalls
from relaybox.flows._json import json_of
from relaybox.flows._metrics import FlowMetrics
from relaybox.periodic import SharedJob
from relaybox.tasks import (
    AttemptOutcome,
    Fence,
    Progress,
    Task,
    TaskLost,
    Worker,
    cancel_task,
    complete_task,
    fail_task,
    fetch_task,
)

__all__ = ("FlowCancellation", "FlowExpiry", "cancel_flow", "flow_subscription", "flow_workers", "park_flow")

_SQL: Final = load_queries(__package__ or "relaybox.flows", "flows.sql")
_DELIVER: Final = _SQL.including("deliver_events", handle=_SQL["handle"])
_RESULT_BYTES_MAX: Final = 1_048_576
_EXPIRE_S: Final = 5.0
#: How many handles :class:`FlowExpiry` expires per transaction, and how many transactions per run.
_EXPIRE_MAX: Final = 100
_BATCHES_MAX: Final = 100
#: Largest number of waiting events that the consumer delivers in one transaction.
_TRANSACTION_EVENTS_MAX: Final = 50
#: Time limit of a delivery, short enough for PostgreSQL's default limit of idle transactions.
_DELIVERY_S: Final = 20.0


class FlowExpiry(SharedJob):
    """Expire pauses whose time is over, every 5 s; create one object per service.

    A pause of Relaybox's own flow, or of :func:`pause_run`, has a task that is due when the pause expires and
    records the expiry. This job expires the other handles: those of :func:`pause` that have no task, and kept
    resumes.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(self._expire, name="relaybox.expire-flows", interval_s=_EXPIRE_S, database=database)

    async def _expire(self) -> None:
        for _ in range(_BATCHES_MAX):
            expired = await self._database.run_in_transaction(
                lambda db: expire_handles(db, handles_max=_EXPIRE_MAX), isolation="READ COMMITTED"
            )
            if len(expired) < _EXPIRE_MAX or self.stopping:
                return


def flow_workers(
    database: Database, definitions: Iterable[FlowDefinition], *, metrics: FlowMetrics | None = None
) -> dict[str, Worker]:
    """Return the workers of *definitions* by task type, for a :class:`~relaybox.tasks.TaskRunner`.

    Args:
        database: Where the flows are stored.
        definitions: The flows.
        metrics: Counts failed steps and expired waits; None: they are not counted.

    Raises:
        FlowInvalid: Two flows have the same name and version.
    """
    runs, by_type = _Runs(database, metrics), dict[str, FlowDefinition]()
    for one in definitions:
        if by_type.setdefault(one.task_type, one) is not one:
            raise FlowInvalid(f"two flows have the name and version {one.task_type}; change one of them")

    def worker(definition: FlowDefinition) -> Worker:
        async def work(task: Task, _progress: Progress) -> AttemptOutcome:
            try:
                await runs.run(definition, task)
            except (TaskLost, asyncio.CancelledError):
                raise
            except BaseException:
                if metrics is not None:
                    metrics.count_failure(definition.name)
                raise
            return AttemptOutcome.ENDED

        return work

    return {task_type: worker(definition) for task_type, definition in by_type.items()}


async def park_flow(database: Database, task: Task) -> None:
    """Mark a flow as FAILED, because a step failed on every attempt.

    Pass ``functools.partial(park_flow, database)`` as ``on_exhausted`` of the task runner. The stored error
    has the code and message of the last failure. The flow's command, if there is one, fails with this error.
    """

    async def park(db: AsyncSession) -> None:
        executor = executor_of(db)
        found = await fetch_task(executor, task.id)
        error = _step_error(None if found is None else found.error_data)
        await fail_task(executor, task.fence, error=error)
        if task.command_id is not None:
            await settle_command(executor, task.command_id, CommandStatus.FAILED, error)

    await database.run_in_transaction(park)


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowCancellation:
    """Result of :func:`cancel_flow`."""

    flow_id: UUID
    #: Correlation id of the pause that was cancelled with the flow; None if the flow had no open pause.
    correlation_id: str | None


async def cancel_flow(db: AsyncSession, flow_id: UUID) -> FlowCancellation | None:
    """Cancel a flow and its current pause, in the caller's transaction.

    A step that runs at this moment is rolled back. Steps that are done keep their effects. If the flow was
    started for a command, the command fails with ``FLOW_CANCELLED``.

    Args:
        db: Session of the caller's transaction.
        flow_id: Id of the flow, or of the task that drives a run of an external engine. This function does
            not call the engine, so the run continues. To end the run, cancel its pause with :func:`cancel`.

    Returns:
        The cancellation; None, with nothing written, if there is no such flow or it has ended.

    Raises:
        RetryTransaction: Another transaction changed the flow: repeat the whole transaction.
    """
    executor = executor_of(db)
    cancelled: str | None = None
    with map_database_errors():
        # The pause comes first, because every transition locks the pause before the task.
        for row in await executor.fetch(_SQL["waiting_pauses"], flow_id):
            with suppress(FlowExpired):  # its time is over; FlowExpiry records this
                await cancel(db, row["correlation_id"])
                cancelled = row["correlation_id"]
        if not await cancel_task(executor, flow_id):
            return None
        error = {
            "error_code": FlowCancelled.error_code,
            "message": f"flow {flow_id} was cancelled; its steps that are done keep their effects",
        }
        for row in await executor.fetch(_SQL["command_of_flow"], flow_id):
            await settle_command(executor, row["command_id"], CommandStatus.FAILED, error)
    return FlowCancellation(flow_id=flow_id, correlation_id=cancelled)


def _step_error(last: Mapping[str, Any] | None) -> dict[str, str]:
    message = "a step failed on every attempt"
    if last is None:
        message += (
            "; no failure was recorded: the process was killed, or PostgreSQL was unavailable; "
            "see the log of the flow's process"
        )
    else:
        message += f"; the last failure was {last['error_code']}: {last['message']}"
    return {"error_code": "FLOW_STEP_FAILED", "message": message}


class _Runs:
    """Run flows; runs that begin or end at the same time share SQL statements (:class:`JointCalls`)."""

    def __init__(self, database: Database, metrics: FlowMetrics | None) -> None:
        self._database = database
        self._metrics = metrics
        self._begin = JointCalls(self._begin_together)
        self._complete = JointCalls(self._complete_together)

    async def run(self, definition: FlowDefinition, task: Task) -> None:
        """Call the function of a flow once; return when the flow waits, or when its end is recorded.

        Raises:
            TaskLost: Another runner has taken over the flow, or the flow was cancelled.
        """
        done = await self._begin.call(task.fence)
        current = Flow(self._database, task, done, event_types=definition.event_types)
        try:
            result = await definition.function(current, task.input_data.get("arguments", {}))
            current.check_end()
        except Suspended:
            return
        finally:
            if self._metrics is not None:
                self._metrics.count_expired(definition.name, current.expired_waits)
        document = dict(result or {})
        text = json_of(f"the result of {task.task_type}", document, _RESULT_BYTES_MAX)
        if task.command_id is None:
            if not await self._complete.call((task.fence, text)):
                raise TaskLost(task.id)
            return
        command_id = task.command_id

        async def complete(db: AsyncSession) -> None:
            await complete_task(executor_of(db), task.fence, result=document)
            await settle_command(executor_of(db), command_id, CommandStatus.COMPLETED)

        await self._database.run_in_transaction(complete)

    async def _begin_together(self, fences: Sequence[Fence]) -> list[list[tuple[str, Any]]]:
        """Record the resumes of flows; return, for each flow, name and result of its recorded steps."""
        ids, tokens = [fence.task_id for fence in fences], [fence.lease_token for fence in fences]
        async with self._database.service_connection() as connection:
            rows = await connection.fetch(_SQL["begin_runs"], ids, tokens)
        done = defaultdict[UUID, list[tuple[str, Any]]](list)
        for row in rows:
            done[row["task_id"]].append((row["name"], from_json(row["result"])))
        return [done[task_id] for task_id in ids]

    async def _complete_together(self, ended: Sequence[tuple[Fence, str]]) -> list[bool]:
        """Complete flows with their results; return, for each flow, whether this runner still held it."""
        arguments = (
            [fence.task_id for fence, _ in ended],
            [fence.lease_token for fence, _ in ended],
            [result for _, result in ended],
        )
        async with self._database.service_connection() as connection:
            rows = await connection.fetch(_SQL["complete_flows"], *arguments)
        completed = {row["id"] for row in rows}
        return [fence.task_id in completed for fence, _ in ended]


def flow_subscription(
    definitions: Iterable[FlowDefinition], *, group: str = "relaybox-flows"
) -> Subscription:
    """Return the subscription by which events reach the waiting flows of *definitions*.

    Run the subscription in a :class:`~relaybox.consumers.Consumer` of its own.

    Args:
        definitions: The flows. All processes of the group need the same definitions, because Kafka gives each
            event to one of the processes.
        group: Consumer group. Applications with different flows need different groups.

    Raises:
        SubscriptionInvalid: No definition declares an event type.
    """
    types = sorted({one for definition in definitions for one in definition.event_types})

    @subscribe(
        *types, group=group, transaction_events_max=_TRANSACTION_EVENTS_MAX, handler_timeout_s=_DELIVERY_S
    )
    async def deliver(_: EventEnvelope, unit: EventTransaction) -> None:
        await _deliver([unit])

    return replace(deliver, joint_handler=_deliver)


async def _deliver(units: Sequence[EventTransaction]) -> None:
    db, events = units[0].db, [unit.event for unit in units]
    arguments = (
        [event.event_type for event in events],
        [event.aggregate_id for event in events],
        [event.model_dump_json() for event in events],
    )
    with map_database_errors():
        await executor_of(db).fetch(_SQL["record_events"], *arguments)
        resumed = await executor_of(db).fetch(_DELIVER, *arguments)
    await record_resumes(db, resumed)
