"""Control the time of tasks, and run those that are due."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from relaybox.db import Database, load_queries
from relaybox.tasks import Task, TaskRun, Worker, run_due_tasks

__all__ = ("Tasks",)

_SQL: Final = load_queries(__package__ or "relaybox.testing", "testing.sql")


class Tasks:
    """Run the tasks of a test, and let time pass for them; the fixture ``relaybox_tasks``.

    Example::

        [run] = await relaybox_tasks.run_due({"REPORT": write_report})
        assert run.outcome is AttemptOutcome.POSTPONED       # the worker raised
        await relaybox_tasks.advance(2)                      # longer than the pause after the first attempt
        [run] = await relaybox_tasks.run_due({"REPORT": write_report})
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def advance(self, seconds: float) -> int:
        """Make all tasks older by *seconds*, as if this time had passed; return the number of tasks.

        Leases, pauses after failed attempts and the timeouts of waiting flows end earlier, and ``created_at``
        is earlier. ``updated_at`` does not change, and a flow in ``sleep_until`` still waits until the same
        time.
        """
        async with self._database.service_connection() as connection:
            await connection.fetch(_SQL["advance_handles"], seconds)
            return len(await connection.fetch(_SQL["advance_tasks"], seconds))

    async def run_due(
        self, workers: Mapping[str, Worker], *, on_exhausted: Callable[[Task], Awaitable[None]] | None = None
    ) -> list[TaskRun]:
        """Run the tasks that are due, at most 1,000, one after the other.

        A task is due if it is PENDING and does not wait for a later time, or if its lease has expired. The
        lease of a task whose attempt failed expires at the end of the pause.

        Args:
            workers: Worker functions by task type; tasks of other types are left as they are.
            on_exhausted: Called with a task that was claimed more than ``TASK_ATTEMPTS_MAX`` times, as by a
                :class:`~relaybox.tasks.TaskRunner`; None: such a task fails the test.

        Returns:
            One entry per task, in the order of the runs: the task, the outcome and the worker's error.

        Raises:
            AssertionError: A task was claimed more than ``TASK_ATTEMPTS_MAX`` times, and *on_exhausted* is
                None.
        """
        __tracebackhide__ = True
        exhausted: list[Task] = []

        async def note(task: Task) -> None:
            exhausted.append(task)

        runs = await run_due_tasks(self._database, workers, on_exhausted=on_exhausted or note)
        if exhausted:
            raise AssertionError(
                f"task {exhausted[0].task_type} {exhausted[0].id} was claimed {exhausted[0].attempts} times, "
                "more than TASK_ATTEMPTS_MAX; let the worker end the task, or pass on_exhausted= to test "
                "what follows the last attempt"
            )
        return runs
