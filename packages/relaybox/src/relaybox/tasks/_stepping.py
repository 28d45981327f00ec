"""Run the tasks that are due now, one after the other: for tests of workers."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

from relaybox.db import Database
from relaybox.settings import TaskSettings
from relaybox.tasks._attempt import Attempt, AttemptOutcome, await_worker
from relaybox.tasks._store import claim_tasks
from relaybox.tasks._task import Progress, Task, Worker

__all__ = ("TaskRun", "run_due_tasks")

_TASKS_MAX: Final = 1_000


@dataclass(frozen=True, kw_only=True)
class TaskRun:
    """One attempt at a task."""

    task: Task
    outcome: AttemptOutcome
    #: The error of the worker; None if the worker returned, or if ``on_exhausted`` was called instead.
    failure: Exception | None


async def run_due_tasks(
    database: Database,
    workers: Mapping[str, Worker],
    *,
    on_exhausted: Callable[[Task], Awaitable[None]],
    settings: TaskSettings | None = None,
) -> list[TaskRun]:
    """Claim the tasks that are due, at most 1,000, and run one after the other as a :class:`TaskRunner` does.

    A task is due if it is PENDING and not suspended until a later time, or if its lease has expired. Tasks
    that a worker creates, and tasks that are postponed, are left to the next call. Leases are not renewed
    while a worker runs.

    Args:
        database: Where tasks are stored.
        workers: Worker functions by task type; tasks of other types are not claimed.
        on_exhausted: Called instead of the worker with a task that has been claimed over
            ``TASK_ATTEMPTS_MAX`` times; must end the task.
        settings: None reads ``TASK_*`` from the environment.

    Returns:
        One :class:`TaskRun` for each task, in the order in which the tasks ran.

    Raises:
        DatabaseError: The tasks cannot be claimed.
    """
    settings = settings or TaskSettings()
    async with database.service_connection() as connection:
        tasks = await claim_tasks(connection, list(workers), tasks_max=_TASKS_MAX, lease_s=settings.lease_s)
    runs: list[TaskRun] = []
    for task in tasks:
        worker = _ObservedWorker(workers[task.task_type])
        attempt = Attempt(
            database=database,
            task=task,
            worker=worker,
            on_exhausted=on_exhausted,
            attempts_max=settings.attempts_max,
            on_progress=None,
            is_cancelled=_is_cancelled,
        )
        outcome = await attempt.run()
        runs.append(TaskRun(task=task, outcome=outcome, failure=worker.failure))
    return runs


class _ObservedWorker:
    """Call a worker and keep its error, which the attempt only logs."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.failure: Exception | None = None

    async def __call__(self, task: Task, progress: Progress) -> AttemptOutcome | None:
        try:
            return await await_worker(self._worker(task, progress), _is_cancelled)
        except Exception as error:
            self.failure = error
            raise


def _is_cancelled() -> bool:
    """Return whether the current task was cancelled, perhaps by a time limit of the test."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
