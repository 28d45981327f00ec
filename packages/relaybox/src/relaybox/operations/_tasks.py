"""Query tasks, retry FAILED ones and cancel open ones for an operator (G43)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, Final, Self
from uuid import UUID

from pydantic_core import from_json, to_json
from relaybox_types.enums import CommandStatus, TaskStatus
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, Executor, executor_of, load_queries
from relaybox.operations._errors import SelectionEmpty, TaskCommandSettled
from relaybox.operations._flow_actions import cancel_and_record
from relaybox.tasks import announce_tasks

__all__ = (
    "TaskDetails",
    "TaskRetryPreview",
    "TaskSelection",
    "TaskSummary",
    "TasksRetried",
    "cancel_open_task",
    "list_tasks",
    "preview_task_cancellation",
    "preview_task_retry",
    "retry_tasks",
    "show_task",
)

_SQL: Final = load_queries(__package__ or "relaybox.operations", "tasks.sql")
_ALL: Final = _SQL["all_tasks"]
_SELECTED: Final = _SQL.including("selected_tasks", all_tasks=_ALL)
_LIST: Final = _SQL.including("list_tasks", selected_tasks=_SELECTED)
_SHOW: Final = _SQL.including("show_task", all_tasks=_ALL)
_PREVIEW: Final = _SQL.including("preview_retry", selected_tasks=_SELECTED)
_RETRY: Final = _SQL.including("retry_tasks", selected_tasks=_SELECTED)
#: End of the type of a task that is a flow: ``@`` and a version, as in the query ``all_flows``.
_FLOW_TYPE: Final = re.compile(r"@[1-9][0-9]{0,8}\Z")
#: Tasks per transaction: bounds the duration of row locks and the size of the recorded action.
_STEP_TASKS_MAX: Final = 1_000


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSelection:
    """Conditions that a task must meet, all of them; an empty condition is met by every task."""

    ids: Sequence[UUID] = ()
    #: Types of tasks; those of flows have a version, such as ``Shop.Refund@1``.
    types: Sequence[str] = ()
    statuses: Sequence[TaskStatus] = ()

    def selects_every_task(self) -> bool:
        """Return whether no condition is set."""
        return not any(asdict(self).values())

    def arguments(self) -> tuple[Any, ...]:
        """Return the parameters $1 to $3 of the query ``selected_tasks``."""
        return tuple(list(values) or None for values in (self.ids, self.types, self.statuses))

    def as_json(self) -> str:
        """Return the conditions that are set as JSON, for the record of an action."""
        return to_json({name: values for name, values in asdict(self).items() if values}).decode()


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskSummary:
    """One task without its input and result."""

    id: UUID
    task_type: str
    status: TaskStatus
    #: Percent, from 0 to 100.
    progress: Decimal
    attempts: int
    #: No runner claims a PENDING task before this time; None if a runner may claim the task at once.
    not_before: datetime | None
    #: End of the lease of a RUNNING task, or of the pause after its failed attempt; None for any other task.
    lease_until: datetime | None
    aggregate_id: UUID | None
    #: The command that the task belongs to; None without one.
    command_id: UUID | None
    #: None without a command, or if retention has removed the command.
    command_status: CommandStatus | None
    #: Error of the last failed attempt; None if no attempt failed.
    error_code: str | None
    error: str | None
    created_at: datetime
    updated_at: datetime

    @property
    def is_flow(self) -> bool:
        """Whether the task is a flow. The end of a flow also ends the command for which it was started."""
        return _FLOW_TYPE.search(self.task_type) is not None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the task in *record*, a result of a query with ``all_tasks``."""
        values: dict[str, Any] = {one.name: record[one.name] for one in fields(cls)}
        command = record["command_status"]
        values["status"] = TaskStatus(record["status"])
        values["command_status"] = None if command is None else CommandStatus(command)
        return cls(**values)


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskDetails:
    """One task with the actions of operators on it."""

    task: TaskSummary
    #: Input and result; None unless requested.
    input_data: Any = field(repr=False)
    result_data: Any = field(repr=False)
    #: Actions of operators on the task, oldest first, each with ``at``, ``by``, ``act`` and ``reason``.
    acts: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskRetryPreview:
    """The FAILED tasks that a retry would change now."""

    #: The first tasks, by id.
    tasks: Sequence[TaskSummary]
    #: Number of tasks, including those not listed.
    tasks_total: int
    #: Number of selected FAILED tasks that a retry would refuse, see :func:`retry_tasks`.
    refused_total: int


@dataclass(frozen=True, kw_only=True, slots=True)
class TasksRetried:
    """Result of a retry."""

    #: Number of tasks that became PENDING.
    tasks_total: int
    #: Number of selected FAILED tasks that were refused, see :func:`retry_tasks`.
    refused_total: int


async def list_tasks(db: Executor, selection: TaskSelection, *, tasks_max: int) -> list[TaskSummary]:
    """Return at most *tasks_max* tasks of *selection*, the oldest first, without their input and result.

    COMPLETED and CANCELLED tasks are left out unless *selection* names ids or statuses.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_LIST, *selection.arguments(), tasks_max)
    return [TaskSummary.from_record(record) for record in found]


async def show_task(db: Executor, task_id: UUID, *, with_payload: bool = False) -> TaskDetails:
    """Return the task *task_id*.

    Args:
        db: A connection.
        task_id: Id of the task.
        with_payload: Whether to return input and result, which may contain personal data.

    Raises:
        SelectionEmpty: There is no such task.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_SHOW, task_id, with_payload)
    if not found:
        raise SelectionEmpty(f"there is no task {task_id}; `relaybox task list` shows the tasks")
    [record] = found
    return TaskDetails(
        task=TaskSummary.from_record(record),
        input_data=_document(record["input_data"]),
        result_data=_document(record["result_data"]),
        acts=record["acts"],
    )


async def preview_task_retry(db: Executor, selection: TaskSelection, *, tasks_max: int) -> TaskRetryPreview:
    """Return the first *tasks_max* tasks that :func:`retry_tasks` would change; change nothing.

    Raises:
        TaskCommandSettled: The selection names tasks by id, none of them can be retried, and the command of a
            FAILED one has ended.
        SelectionEmpty: The selection names tasks by id, none of them can be retried, and no such command has
            ended.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = await db.fetch(_PREVIEW, *selection.arguments(), tasks_max)
    if not found[0]["total"]:
        await _raise_if_tasks_are_named(db, selection)
    return TaskRetryPreview(
        tasks=[TaskSummary.from_record(record) for record in found if record["id"] is not None],
        tasks_total=found[0]["total"],
        refused_total=found[0]["total_refused"],
    )


async def retry_tasks(
    database: Database, selection: TaskSelection, *, by: str, reason: str | None = None
) -> TasksRetried:
    """Make the selected FAILED tasks PENDING, with attempts 0.

    A flow continues at the step that failed, with the recorded results of the steps before. Two kinds of
    tasks are refused, and stay FAILED: a task whose command has ended or was removed by retention, because
    the result of the task would be rejected, and a task whose input was erased.

    Args:
        database: The database; each transaction changes at most 1,000 tasks.
        selection: The tasks; tasks of other statuses are left out.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Raises:
        TaskCommandSettled, SelectionEmpty: As in :func:`preview_task_retry`.
        DatabaseError: PostgreSQL is unreachable or too busy; earlier transactions of this call are committed.
    """
    tasks = 0
    after_id: UUID | None = UUID(int=0)
    while after_id is not None:
        arguments = (*selection.arguments(), after_id, _STEP_TASKS_MAX, by, reason, selection.as_json())
        step = await database.run_in_transaction(partial(_retry_step, arguments), isolation="READ COMMITTED")
        tasks += step["tasks"]
        after_id = step["last_id"]
    async with database.connection() as connection:
        if not tasks:
            await _raise_if_tasks_are_named(connection, selection)
        left = await connection.fetch(_PREVIEW, *selection.arguments(), 0)
    return TasksRetried(tasks_total=tasks, refused_total=left[0]["total_refused"])


async def _retry_step(arguments: Sequence[Any], db: AsyncSession) -> Mapping[str, Any]:
    [step] = await executor_of(db).fetch(_RETRY, *arguments)
    announce_tasks(db, step["task_types"])
    return step


async def preview_task_cancellation(db: Executor, task_id: UUID) -> TaskSummary:
    """Return the task that :func:`cancel_open_task` would cancel; change nothing.

    Raises:
        SelectionEmpty: There is no such task, or it has ended.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = (await show_task(db, task_id)).task
    if found.status not in (TaskStatus.PENDING, TaskStatus.RUNNING):
        raise SelectionEmpty(
            f"task {task_id} is {found.status}; only a PENDING or RUNNING task can be cancelled; "
            "`relaybox task list` shows these tasks"
        )
    return found


async def cancel_open_task(database: Database, task_id: UUID, *, by: str, reason: str) -> TaskSummary:
    """Cancel a task that has not ended, and the pause for which the task waits, if there is one.

    If a worker runs the task at this moment, its next write is rejected (G43). The command of a flow fails
    with ``FLOW_CANCELLED``. The command of any other task does not change: only the application can end this
    command, see :func:`relaybox.commands.settle_command`. The task may also be the driver of a run of an
    external flow engine, such as Prefect: then the pause is cancelled, but the engine is not called.

    Args:
        database: The database; the call takes one transaction.
        task_id: Id of the task.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Returns:
        The task as it was before the cancellation.

    Raises:
        SelectionEmpty: There is no such task, or it has ended.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """

    async def work(db: AsyncSession) -> TaskSummary:
        found = await preview_task_cancellation(executor_of(db), task_id)
        await cancel_and_record(db, task_id, by=by, reason=reason)
        return found

    return await database.run_in_transaction(work)


async def _raise_if_tasks_are_named(db: Executor, selection: TaskSelection) -> None:
    if not selection.ids:
        return
    found = await db.fetch(_LIST, *selection.arguments(), len(selection.ids))
    for task in found:
        if task["status"] == TaskStatus.FAILED and task["refusal"] == "COMMAND_SETTLED":
            raise TaskCommandSettled(task["id"], task["command_id"], task["command_status"])
    if any(task["status"] == TaskStatus.FAILED and task["refusal"] for task in found):
        raise SelectionEmpty(
            "the input of the named FAILED tasks was erased, so they cannot be retried; send a new command"
        )
    raise SelectionEmpty("none of the named tasks is FAILED; `relaybox task show` prints their status")


def _document(text: str | None) -> Any:
    return None if text is None else from_json(text)
