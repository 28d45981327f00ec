"""Work that outlives its request: ``async_tasks`` with lease, fence, progress and cancellation.

A consumer's handler makes a task (:func:`create_task`) in the transaction of its event, an endpoint in
that of its command; a :class:`TaskRunner` gives it to a worker, which ends it (:func:`complete_task`,
:func:`fail_task`) in the transaction that holds the result.
"""

from relaybox.tasks._attempt import Ending, pause_s_after
from relaybox.tasks._errors import TaskError, TaskLost, TaskUnfinished
from relaybox.tasks._progress import worth_writing
from relaybox.tasks._runner import RunnerMoment, TaskRunner
from relaybox.tasks._statistics import RunnerStatistics
from relaybox.tasks._store import cancel_task, complete_task, create_task, fail_task, fetch_task
from relaybox.tasks._task import Fence, OnProgress, Progress, Task, Worker

__all__ = (
    "Ending",
    "Fence",
    "OnProgress",
    "Progress",
    "RunnerMoment",
    "RunnerStatistics",
    "Task",
    "TaskError",
    "TaskLost",
    "TaskRunner",
    "TaskUnfinished",
    "Worker",
    "cancel_task",
    "complete_task",
    "create_task",
    "fail_task",
    "fetch_task",
    "pause_s_after",
    "worth_writing",
)
