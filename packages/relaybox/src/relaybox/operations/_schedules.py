"""Query and remove schedules for an operator."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Final, Self
from uuid import UUID

from relaybox_types.enums import TaskStatus
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, Executor, executor_of, load_queries
from relaybox.operations._errors import SelectionEmpty
from relaybox.operations._flow_actions import record_act

__all__ = ("ScheduleSummary", "list_schedules", "preview_schedule_removal", "remove_schedule")

_SQL: Final = load_queries(__package__ or "relaybox.operations", "schedules.sql")


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleSummary:
    """One schedule: of a recurring task, or of a job that one process of the installation runs at a time."""

    name: str
    #: Cron expression and time zone; None for a job.
    cron: str | None
    timezone: str | None
    #: Seconds from the start of one run of a job to the next; None for a recurring task.
    interval_s: float | None
    #: Whether each missed tick creates a task; otherwise only the latest missed tick does.
    each_missed: bool
    #: Whether a tick creates a task although the task of the tick before has not ended.
    may_overlap: bool
    next_tick_at: datetime
    #: Seconds for which a tick has been due; 0 if none is.
    overdue_s: float
    #: Of a recurring task: the tick that created the last task. Of a job: the start of the last run. None
    #: before the first one.
    last_tick_at: datetime | None
    #: Task of the last tick; None for a job.
    last_task_id: UUID | None
    #: PENDING or RUNNING if the last task has not ended, else None.
    task_status: TaskStatus | None
    #: Result of the last task or run that has ended: COMPLETED, FAILED or CANCELLED. None if none has ended,
    #: or if retention had removed the task before its result was recorded.
    last_outcome: TaskStatus | None
    #: Error of the last failed attempt or run, or of a cron expression or time zone that cannot be used; None
    #: after a success.
    error_code: str | None
    error: str | None
    last_ended_at: datetime | None
    #: Of a job: seconds that the last run took. Of a recurring task: seconds from the creation to the end of
    #: the last task that has ended. None if none has ended.
    last_duration_s: float | None

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """Return the schedule in *record*, a result of the query ``list_schedules``."""
        values: dict[str, Any] = {one.name: record[one.name] for one in fields(cls)}
        for name in ("task_status", "last_outcome"):
            values[name] = values[name] and TaskStatus(values[name])
        return cls(**values)


async def list_schedules(db: Executor, *, schedules_max: int) -> list[ScheduleSummary]:
    """Return the first *schedules_max* schedules by name.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    return [ScheduleSummary.from_record(row) for row in await db.fetch(_SQL["list_schedules"], schedules_max)]


async def preview_schedule_removal(db: Executor, name: str) -> None:
    """Check that :func:`remove_schedule` would find the schedule *name*; change nothing.

    Raises:
        SelectionEmpty: There is no such schedule.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    if not await db.fetch(_SQL["show_schedule"], name):
        raise _unknown(name)


async def remove_schedule(database: Database, name: str, *, by: str, reason: str) -> None:
    """Remove a schedule that no program declares any more; its tasks stay.

    A running process that still declares the schedule creates no more tasks of it. A program that declares
    the schedule records it again when the program starts. The schedule of a shared job is recorded again by
    the next run of the job. The database does not know which processes declare a schedule.

    Args:
        database: The database; the call takes one transaction.
        name: Name of the schedule.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Raises:
        SelectionEmpty: There is no such schedule.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """

    async def work(db: AsyncSession) -> None:
        if not await executor_of(db).fetch(_SQL["remove_schedule"], name):
            raise _unknown(name)
        await record_act(db, by, "remove", reason, {"schedule": name})

    await database.run_in_transaction(work)


def _unknown(name: str) -> SelectionEmpty:
    return SelectionEmpty(f"there is no schedule {name!r}; `relaybox schedule list` shows the schedules")
