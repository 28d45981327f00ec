"""Define the errors of tasks.

::

    RelayboxError
    └── TaskError
        ├── TaskLost         cancelled, ended, or taken over by another runner
        ├── TaskUnfinished   the worker returned and did not end the task
        └── WorkerAborted    the worker raised SystemExit, KeyboardInterrupt or CancelledError
"""

from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = ("TaskError", "TaskLost", "TaskUnfinished", "WorkerAborted")


class TaskError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "TASK_ERROR"


class TaskLost(TaskError):
    """Raised when a worker writes to a task that it does not hold any more.

    The task was cancelled, ended, or taken over after its lease had expired (G43). The worker must roll back
    and stop.
    """

    error_code = "TASK_LOST"

    def __init__(self, task_id: UUID) -> None:
        super().__init__(f"task {task_id} was cancelled, ended or taken over; roll back and stop its worker")
        self.task_id = task_id


class TaskUnfinished(TaskError):
    """Raised when a worker returned without ending its task.

    A worker must call :func:`relaybox.tasks.complete_task` or :func:`relaybox.tasks.fail_task` in the
    transaction that writes the result.
    """

    error_code = "TASK_UNFINISHED"


class WorkerAborted(TaskError):
    """Raised when a worker raised SystemExit, KeyboardInterrupt or CancelledError.

    For example, the worker awaited an asyncio task that was cancelled. The runner replaces such an exception
    by this error, which counts as a failed attempt. Otherwise the exception would end the runner.
    """

    error_code = "WORKER_ABORTED"

    def __init__(self, error: BaseException) -> None:
        super().__init__(
            f"the worker raised {type(error).__name__}, which counts as a failed attempt; do not call "
            "sys.exit there, and catch CancelledError of awaited tasks"
        )
