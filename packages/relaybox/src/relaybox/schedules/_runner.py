"""Create the tasks of ticks, and run them."""

import asyncio
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.db import Database, executor_of
from relaybox.periodic import PeriodicJob
from relaybox.schedules._cron import Cron
from relaybox.schedules._definition import RecurringTask, Tick
from relaybox.schedules._errors import ScheduleInvalid
from relaybox.schedules._store import create_due_tasks, declare_schedules
from relaybox.settings import TaskSettings, load_settings
from relaybox.signals import OnSignal
from relaybox.tasks import (
    Progress,
    Task,
    TaskRunner,
    TaskSignal,
    Worker,
    complete_task,
    fail_task,
    fetch_task,
)

__all__ = ("RecurringTaskRunner", "recurring_workers")

_FAILED: Final = {
    "error_code": "TASK_ATTEMPT_FAILED",
    "message": "every attempt ended without a recorded error, probably because the process was killed; "
    "see the log of the process",
}


class RecurringTaskRunner:
    """Create a task for each tick of the schedules in *tasks* that is due, and run the created tasks.

    Several processes may have a runner for the same schedules: each tick gets one task, and one process runs
    the task. The runner looks for due ticks every ``TASK_POLL_S`` and when a task ends. If several ticks of a
    schedule are due by then, :class:`MissedTicks` decides which of them get a task. The runner records the
    schedules when it starts.

    Args:
        database: Where schedules and tasks are stored.
        tasks: The functions that were decorated with :func:`recurring_task`; their names must differ.
        settings: Limits and intervals; None reads ``TASK_*`` from the environment.
        on_signal: Called with each step of the task runner, for tests.

    Raises:
        ScheduleInvalid: Two tasks have the same name.
    """

    def __init__(
        self,
        database: Database,
        tasks: Iterable[RecurringTask],
        *,
        settings: TaskSettings | None = None,
        on_signal: OnSignal[TaskSignal] | None = None,
    ) -> None:
        settings = settings or load_settings(TaskSettings)
        self._database = database
        self._tasks = list(tasks)
        self._names = [task.name for task in self._tasks]
        if twice := {name for name in self._names if self._names.count(name) > 1}:
            raise ScheduleInvalid(f"two recurring tasks have the name {min(twice)!r}; rename one of them")
        self._are_declared = False
        self._ticking = PeriodicJob(self._tick, name="create tasks of ticks", interval_s=settings.poll_s)
        #: Runs the tasks of the ticks; has their statistics.
        self.runner = TaskRunner(
            database,
            recurring_workers(database, self._tasks),
            on_exhausted=self._fail,
            settings=settings,
            on_signal=self._on_signal,
        )
        self._signal = on_signal

    def __repr__(self) -> str:
        return f"<RecurringTaskRunner {', '.join(sorted(self._names))}>"

    def stop(self) -> None:
        """Create and claim no more tasks, and make :meth:`run` return."""
        self._ticking.stop()
        self.runner.stop()

    async def run(self) -> None:
        """Create and run tasks until :meth:`stop`; retry without limit while PostgreSQL is unavailable."""
        ticking = asyncio.create_task(self._ticking.run(), name="ticks")
        try:
            await self.runner.run()
        finally:
            self._ticking.stop()
            await ticking

    async def _tick(self) -> None:
        if not self._are_declared:
            async with self._database.service_connection() as connection:
                await declare_schedules(connection, self._tasks)
            self._are_declared = True
        while not self._ticking.stopping and await create_due_tasks(self._database, self._names):
            self.runner.wake()

    def _on_signal(self, signal: TaskSignal) -> None:
        if signal is TaskSignal.ENDED:
            self._ticking.wake()  # a due tick may wait for the end of its schedule's previous task
        if self._signal is not None:
            self._signal(signal)

    async def _fail(self, task: Task) -> None:
        """Mark the task FAILED, with the error of its last attempt."""

        async def work(db: AsyncSession) -> None:
            executor = executor_of(db)
            known = await fetch_task(executor, task.id)
            error = (known and known.error_data) or _FAILED
            await fail_task(executor, task.fence, error=error)

        await self._database.run_in_transaction(work, isolation="READ COMMITTED")


def recurring_workers(database: Database, tasks: Iterable[RecurringTask]) -> dict[str, Worker]:
    """Return the workers of *tasks* by task type, for a :class:`~relaybox.tasks.TaskRunner`.

    A :class:`RecurringTaskRunner` has these workers already. Use this function in a process that only runs
    tasks which other processes create.
    """

    def worker(definition: RecurringTask) -> Worker:
        async def work(task: Task, _progress: Progress) -> None:
            tick = _tick_of(definition, task)

            async def effect(db: AsyncSession) -> None:
                result = await definition.function(tick, db)
                await complete_task(executor_of(db), task.fence, result=dict(result or {}))

            # READ COMMITTED: the renewal of the lease changes the task's row while the function runs.
            await database.run_in_transaction(effect, isolation="READ COMMITTED")

        return work

    return {definition.name: worker(definition) for definition in tasks}


def _tick_of(definition: RecurringTask, task: Task) -> Tick:
    zone = Cron(expression=definition.cron, timezone=definition.timezone).zone
    at, previous_at = (task.input_data[name] for name in ("tick_at", "previous_tick_at"))
    return Tick(
        id=task.id,
        name=definition.name,
        at=datetime.fromisoformat(at).astimezone(zone),
        previous_at=previous_at and datetime.fromisoformat(previous_at).astimezone(zone),
    )
