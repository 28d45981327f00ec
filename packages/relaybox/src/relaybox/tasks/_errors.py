"""What can go wrong with a task.

::

    RelayboxError
    └── TaskError
        ├── TaskLost         another worker has it, or it was cancelled
        └── TaskUnfinished   its worker returned and left it open
"""

from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = ("TaskError", "TaskLost", "TaskUnfinished")


class TaskError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "TASK_ERROR"


class TaskLost(TaskError):
    """Raised when a worker writes to a task it no longer holds: roll back and stop working on it.

    The task was cancelled, ended, or taken over after its lease ran out (G43).
    """

    error_code = "TASK_LOST"

    def __init__(self, task_id: UUID) -> None:
        super().__init__(
            f"task {task_id} was cancelled, ended or taken over; roll back and stop working on it"
        )
        self.task_id = task_id


class TaskUnfinished(TaskError):
    """Raised when a worker returned although its task was still open: the worker must end it.

    Call :func:`relaybox.tasks.complete_task` or :func:`relaybox.tasks.fail_task` in the
    transaction that holds the result.
    """

    error_code = "TASK_UNFINISHED"
