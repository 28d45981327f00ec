"""Execute the statements on ``async_tasks``: each takes one round trip, and works inside any transaction."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json
from relaybox_types.rows import AsyncTask

from relaybox.db import Executor, load_queries
from relaybox.tasks._errors import TaskLost
from relaybox.tasks._statistics import TaskBacklog
from relaybox.tasks._task import Fence, Task

__all__ = (
    "cancel_task",
    "claim_tasks",
    "complete_task",
    "create_task",
    "fail_task",
    "fetch_task",
    "measure_backlog",
    "postpone_task",
    "release_task",
    "renew_leases",
    "report_progress",
    "suspend_task",
    "wake_tasks",
)

#: Each further open task of a fairness key is claimed as if it had been created this many seconds after the
#: previous task of the key.
_FAIRNESS_GAP_S: Final = 3_600.0
#: Most tasks of one state that a measurement counts.
_COUNT_MAX: Final = 10_000
_SQL: Final = load_queries(__package__ or "relaybox.tasks", "tasks.sql")


async def create_task(
    executor: Executor,
    *,
    task_type: str,
    command_id: UUID,
    aggregate_id: UUID | None,
    input_data: Mapping[str, Any],
    fairness_key: str | None = None,
) -> UUID | None:
    """Create the task of a command and mark the command PROCESSING, in one statement.

    Args:
        executor: A connection or session; the task exists if its transaction commits.
        task_type: Selects the worker.
        command_id: The command, whose status is RECEIVED.
        aggregate_id: The aggregate that the task works on, if there is one.
        input_data: JSON object for the worker.
        fairness_key: For example a user's id: many open tasks of one key delay a task of another key by one
            task at most. Tasks without a key are claimed in the order of their creation.

    Returns:
        The task's id; None, with nothing written, if the command is not RECEIVED, for example because it was
        withdrawn or has its task already.

    Raises:
        pydantic_core.PydanticSerializationError: *input_data* cannot be written as JSON.
    """
    rows = await executor.fetch(
        _SQL["create_task"],
        task_type,
        command_id,
        aggregate_id,
        _json(input_data),
        fairness_key,
        _FAIRNESS_GAP_S,
    )
    return rows[0]["id"] if rows else None


async def fetch_task(executor: Executor, task_id: UUID) -> AsyncTask | None:
    """Return the task, or None if it does not exist; the caller checks the permission to read the task."""
    rows = await executor.fetch(_SQL["fetch_task"], task_id)
    if not rows:
        return None
    documents = {name: _document(rows[0][name]) for name in ("input_data", "result_data", "error_data")}
    return AsyncTask.model_validate({**rows[0], **documents})


async def cancel_task(executor: Executor, task_id: UUID) -> bool:
    """Cancel the task inside the caller's transaction; return False if it does not exist or had ended.

    The next write of the task's worker is rejected (G43). The command of the task stays pending until the
    caller ends it by :func:`relaybox.commands.settle_command`.
    """
    return bool(await executor.fetch(_SQL["cancel_task"], task_id))


async def complete_task(
    executor: Executor,
    fence: Fence,
    *,
    result: Mapping[str, Any],
    input_data: Mapping[str, Any] | None = None,
) -> None:
    """Complete the task with *result*, inside the caller's transaction.

    Args:
        executor: The caller's transaction. If it may last longer than a quarter of ``TASK_LEASE_S``, its
            isolation level must be READ COMMITTED: at a stricter level this call fails, because the renewal
            of the lease has changed the task's row.
        fence: The fencing token, ``task.fence``.
        result: JSON object to store in ``result_data``.
        input_data: Replaces the task's input, which may be large or private; None keeps it.

    Raises:
        TaskLost: The worker does not hold the task any more; the caller's transaction must not commit.
    """
    documents = (_json(result), _replacement(input_data))
    rows = await executor.fetch(_SQL["complete_task"], fence.task_id, fence.lease_token, *documents)
    _require_held(rows, fence)


async def fail_task(
    executor: Executor,
    fence: Fence,
    *,
    error: Mapping[str, Any],
    input_data: Mapping[str, Any] | None = None,
) -> None:
    """Mark the task FAILED with *error*, inside the caller's transaction.

    Args:
        executor: See :func:`complete_task`.
        fence: The fencing token, ``task.fence``.
        error: JSON object to store in ``error_data``.
        input_data: See :func:`complete_task`.

    Raises:
        TaskLost: The worker does not hold the task any more; the caller's transaction must not commit.
    """
    documents = (_json(error), _replacement(input_data))
    rows = await executor.fetch(_SQL["fail_task"], fence.task_id, fence.lease_token, *documents)
    _require_held(rows, fence)


async def claim_tasks(
    executor: Executor, task_types: Sequence[str], *, tasks_max: int, lease_s: float
) -> list[Task]:
    """Claim at most *tasks_max* tasks of *task_types*, each with a lease of *lease_s* seconds.

    A task can be claimed if it is PENDING and not suspended until a later time, or if its lease has expired.
    """
    rows = await executor.fetch(_SQL["claim_tasks"], list(task_types), tasks_max, lease_s)
    return [_task(row) for row in rows]


async def renew_leases(executor: Executor, fences: Iterable[Fence], *, lease_s: float) -> set[UUID]:
    """Renew the leases of *fences* for *lease_s* seconds; return the ids of tasks that are lost.

    A task is lost if it was cancelled, is PENDING again, or was claimed by another runner. The id of a task
    that was completed or failed is not returned, because its worker may not have returned yet.
    """
    held = list(fences)
    ids, tokens = [fence.task_id for fence in held], [fence.lease_token for fence in held]
    rows = await executor.fetch(_SQL["renew_leases"], ids, tokens, lease_s)
    return {row["id"] for row in rows}


async def report_progress(executor: Executor, fence: Fence, percent: Decimal) -> Decimal:
    """Record *percent* unless a higher value is recorded; return the recorded value.

    Raises:
        TaskLost: The worker does not hold the task any more.
    """
    rows = await executor.fetch(_SQL["report_progress"], fence.task_id, fence.lease_token, percent)
    _require_held(rows, fence)
    return rows[0]["progress"]


async def release_task(executor: Executor, fence: Fence) -> bool:
    """Change the task to PENDING without counting the attempt; return False if *fence* is not valid."""
    return bool(await executor.fetch(_SQL["release_task"], fence.task_id, fence.lease_token))


async def postpone_task(
    executor: Executor, fence: Fence, *, pause_s: float, error: Mapping[str, Any]
) -> bool:
    """Let the task be claimed again after *pause_s* seconds; return False if *fence* is not valid any more.

    The task stays RUNNING, and its lease ends after the pause. *error* is stored in ``error_data``.
    """
    arguments = (fence.task_id, fence.lease_token, pause_s, _json(error))
    return bool(await executor.fetch(_SQL["postpone_task"], *arguments))


async def suspend_task(executor: Executor, fence: Fence, *, not_before: datetime) -> None:
    """Set the task to PENDING inside the caller's transaction; no runner claims it before *not_before*.

    :func:`wake_tasks` lets the task be claimed earlier. The attempts of the task are counted from 0 again,
    and ``error_data`` is cleared. The worker must return after the transaction has committed.

    Args:
        executor: The caller's transaction.
        fence: The fencing token, ``task.fence``.
        not_before: When the task is due; a time in the past counts as now. Tasks are claimed in the order in
            which they became due.

    Raises:
        TaskLost: The worker does not hold the task any more; the caller's transaction must not commit.
    """
    rows = await executor.fetch(_SQL["suspend_task"], fence.task_id, fence.lease_token, not_before)
    _require_held(rows, fence)


async def wake_tasks(executor: Executor, task_ids: Sequence[UUID]) -> frozenset[str]:
    """Let suspended tasks be claimed at once, inside the caller's transaction.

    One transaction may suspend a task because an event has not arrived, while another transaction records the
    event and wakes the task. Both transactions must begin by locking the same row. Otherwise the task may be
    suspended after it was woken, and then waits until its *not_before*.

    The tasks are locked in the order of their ids, so two transactions that each call this function once
    cannot deadlock. Transactions that call it several times can deadlock. PostgreSQL then aborts one of them
    (:class:`relaybox.db.RetryTransaction`), and its caller must repeat this transaction.

    Returns:
        The types of the tasks, to be passed to :func:`relaybox.tasks.announce_tasks`.
    """
    return frozenset(row["task_type"] for row in await executor.fetch(_SQL["wake_tasks"], list(task_ids)))


def _json(document: Mapping[str, Any]) -> str:
    return to_json(document).decode()


def _replacement(document: Mapping[str, Any] | None) -> str | None:
    return None if document is None else _json(document)


def _document(text: str | None) -> dict[str, Any] | None:
    return None if text is None else from_json(text)


def _require_held(rows: Sequence[Mapping[str, Any]], fence: Fence) -> None:
    if not rows:
        raise TaskLost(fence.task_id)


def _task(row: Mapping[str, Any]) -> Task:
    return Task(
        id=row["id"],
        task_type=row["task_type"],
        command_id=row["triggered_by_command_id"],
        aggregate_id=row["aggregate_id"],
        input_data=_document(row["input_data"]) or {},
        progress=row["progress"],
        attempts=row["attempts"],
        lease_token=row["lease_token"],
    )


async def measure_backlog(executor: Executor, task_types: Sequence[str]) -> TaskBacklog:
    """Count the open tasks of *task_types*, and measure the age of the oldest PENDING one."""
    [row] = await executor.fetch(_SQL["measure_backlog"], task_types, _COUNT_MAX)
    return TaskBacklog(
        pending=row["pending"],
        running=row["running"],
        expired=row["expired"],
        oldest_pending_s=row["oldest_pending_s"],
    )
