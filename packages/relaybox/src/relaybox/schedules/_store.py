"""Record schedules, and create the tasks of ticks that are due."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID, uuid5

import structlog
from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, Executor, executor_of, load_queries
from relaybox.schedules._cron import Cron
from relaybox.schedules._definition import MissedTicks, RecurringTask
from relaybox.schedules._errors import ScheduleInvalid

__all__ = ("create_due_tasks", "declare_schedules")

_log: Final = structlog.stdlib.get_logger(__name__)
_SQL: Final = load_queries(__package__ or "relaybox.schedules", "schedules.sql")
#: Namespace of the ids of ticks.
_TICKS: Final = UUID("5f0e1b52-6ad6-4f8b-9d0a-52d1e7f6a0c3")


async def declare_schedules(
    executor: Executor, tasks: Iterable[RecurringTask], *, now: datetime | None = None
) -> None:
    """Record the schedules of *tasks*; keep the recorded next tick of a schedule that has not changed.

    If the schedule, its cron expression or its time zone is new, its next tick is the first after *now*.

    Args:
        executor: A connection or session.
        tasks: The recurring tasks of this process.
        now: The present time; None: the time of the database's clock.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    if now is None:
        [row] = await executor.fetch(_SQL["current_time"])
        now = row["now"]
    assert now is not None  # the query returns the time
    for task in tasks:
        definition = (task.cron, task.timezone, task.missed is MissedTicks.EACH, task.may_overlap)
        await executor.fetch(_SQL["declare"], task.name, *definition, task.next_tick(now))


async def create_due_tasks(database: Database, names: Sequence[str], *, now: datetime | None = None) -> int:
    """Create the tasks of ticks that are due, at most one per schedule; return the number of these ticks.

    With ``MissedTicks.EACH`` a schedule may have further due ticks: call this function until it returns 0.
    A tick whose task exists already is counted too. Several processes may call this function at once: each
    tick gets one task. The task and the schedule's next tick are written in one transaction.

    Args:
        database: The database; the call takes one transaction.
        names: Names of the schedules for which tasks are created.
        now: A tick at this time or earlier is due; None: the time of the database's clock.

    Raises:
        DatabaseError: PostgreSQL is unreachable or too busy.
    """

    async def work(db: AsyncSession) -> int:
        executor = executor_of(db)
        if ended := await executor.fetch(_SQL["lock_ended"], list(names)):
            # A separate statement, because its snapshot must have the last tasks of the schedules as locked.
            await executor.fetch(_SQL["record_ended"], [schedule["name"] for schedule in ended])
        due = await executor.fetch(_SQL["lock_due"], list(names), now)
        return sum([await _tick(executor, schedule) for schedule in due])

    # READ COMMITTED: a schedule that another process has just advanced is read again, and is not due.
    return await database.run_in_transaction(work, isolation="READ COMMITTED")


async def _tick(executor: Executor, schedule: Mapping[str, Any]) -> int:
    """Create the task of the locked *schedule* and set its next tick; return 0 if its cron is unusable."""
    name, at, now = schedule["name"], schedule["next_tick_at"], schedule["now"]
    try:
        cron = Cron(expression=schedule["cron"], timezone=schedule["timezone"])
        if not schedule["each_missed"]:
            at = cron.last_tick(at, now)
        following = cron.next_tick(at)
    except ScheduleInvalid as error:
        # For example, a process of a later release has recorded an expression that this one cannot parse.
        # Each poll of each process finds this error; only the process that records it first logs it.
        unusable = {"error_code": error.error_code, "message": str(error)}
        if await executor.fetch(_SQL["record_unusable"], name, to_json(unusable).decode()):
            _log.error(
                "schedule has an unusable cron expression or time zone; no tasks are created",
                schedule=name,
                error_code=error.error_code,
                reason=str(error),
                remedy="correct the declaration of the schedule, or update this process",
            )
        return 0
    previous = schedule["last_tick_at"]
    document = {"tick_at": at.astimezone(UTC), "previous_tick_at": previous and previous.astimezone(UTC)}
    task_id = uuid5(_TICKS, f"{name} {at.astimezone(UTC).isoformat()}")
    await executor.fetch(_SQL["tick"], name, task_id, to_json(document).decode(), at, following)
    return 1
