"""Run work that takes longer than a request: tasks with lease, fencing token, progress and cancellation.

A consumer's handler creates a task (:func:`create_task`) in the transaction of its event, an endpoint in the
transaction of its command. A :class:`TaskRunner` passes the task to a worker, which ends the task
(:func:`complete_task`, :func:`fail_task`) in the transaction that writes the result.
"""

from relaybox.tasks._announcement import announce_tasks
from relaybox.tasks._attempt import AttemptOutcome, retry_pause_s
from relaybox.tasks._errors import TaskError, TaskLost, TaskUnfinished, WorkerAborted
from relaybox.tasks._progress import should_record_progress
from relaybox.tasks._runner import TaskRunner, TaskSignal
from relaybox.tasks._statistics import RunnerStatistics, TaskBacklog, TaskCollector
from relaybox.tasks._stepping import TaskRun, run_due_tasks
from relaybox.tasks._store import (
    cancel_task,
    complete_task,
    create_task,
    fail_task,
    fetch_task,
    suspend_task,
    wake_tasks,
)
from relaybox.tasks._task import Fence, OnProgress, Progress, Task, Worker

__all__ = (
    "AttemptOutcome",
    "Fence",
    "OnProgress",
    "Progress",
    "RunnerStatistics",
    "Task",
    "TaskBacklog",
    "TaskCollector",
    "TaskError",
    "TaskLost",
    "TaskRun",
    "TaskRunner",
    "TaskSignal",
    "TaskUnfinished",
    "Worker",
    "WorkerAborted",
    "announce_tasks",
    "cancel_task",
    "complete_task",
    "create_task",
    "fail_task",
    "fetch_task",
    "retry_pause_s",
    "run_due_tasks",
    "should_record_progress",
    "suspend_task",
    "wake_tasks",
)
