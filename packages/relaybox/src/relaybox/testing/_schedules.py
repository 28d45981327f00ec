"""Control the time of recurring tasks, and run their ticks."""

from collections.abc import Iterable
from datetime import datetime

from relaybox.db import Database
from relaybox.schedules import RecurringTask, create_due_tasks, declare_schedules, recurring_workers
from relaybox.tasks import TaskRun
from relaybox.testing._tasks import Tasks

__all__ = ("Schedules",)


class Schedules:
    """Run the recurring tasks of a test at times that the test sets; the fixture ``relaybox_schedules``.

    Example::

        await relaybox_schedules.start([daily_report], at=datetime(2026, 3, 28, 12, tzinfo=UTC))
        [run] = await relaybox_schedules.advance_to(datetime(2026, 3, 29, 12, tzinfo=UTC))
        assert run.failure is None
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._tasks: list[RecurringTask] = []

    async def start(self, tasks: Iterable[RecurringTask], *, at: datetime) -> None:
        """Record the schedules of *tasks*, as if a first process with them started at the time *at*."""
        self._tasks = list(tasks)
        async with self._database.service_connection() as connection:
            await declare_schedules(connection, self._tasks, now=at)

    async def advance_to(self, now: datetime) -> list[TaskRun]:
        """Run the ticks that are due at the time *now*, as if no process had run since the last call.

        Returns:
            One entry per run of a task, in the order of the runs: the task, the outcome and the function's
            error. After an error the outcome is POSTPONED. To test the next attempt, skip the pause after the
            failed attempt with :meth:`relaybox.testing.Tasks.advance`, and call this method again.

        Raises:
            AssertionError: A task was claimed more than ``TASK_ATTEMPTS_MAX`` times.
        """
        names, workers = [task.name for task in self._tasks], recurring_workers(self._database, self._tasks)
        runs: list[TaskRun] = []
        while True:
            await create_due_tasks(self._database, names, now=now)
            done = await Tasks(self._database).run_due(workers)
            if not done:
                return runs
            runs += done
