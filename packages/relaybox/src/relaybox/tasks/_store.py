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
#: Tasks of one status that a measurement counts.
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
        The task's id; None, with nothing written, if the command is not RECEIVED: it was withdrawn, or has
        its task already.

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
    """Cancel the task inside the caller's transaction; return False if it had ended already.

    The next write of the task's worker is rejected (G43). The task's command stays pending:
    :func:`relaybox.commands.settle_command` ends the command.
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

    *executor* and *input_data* as for :func:`complete_task`.

    Raises:
        TaskLost: The worker does not hold the task any more; the caller's transaction must not commit.
    """
    documents = (_json(error), _replacement(input_data))
    rows = await executor.fetch(_SQL["fail_task"], fence.task_id, fence.lease_token, *documents)
    _require_held(rows, fence)


async def claim_tasks(
    executor: Executor, task_types: Sequence[str], *, tasks_max: int, lease_s: float
) -> list[Task]:
    """Claim at most *tasks_max* tasks that are PENDING or whose lease has expired, for *lease_s* seconds."""
    rows = await executor.fetch(_SQL["claim_tasks"], list(task_types), tasks_max, lease_s)
    return [_task(row) for row in rows]


async def renew_leases(executor: Executor, fences: Iterable[Fence], *, lease_s: float) -> set[UUID]:
    """Renew the leases of *fences* for *lease_s* seconds; return the ids of lost and cancelled tasks."""
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

    *error* is stored in ``error_data``.
    """
    arguments = (fence.task_id, fence.lease_token, pause_s, _json(error))
    return bool(await executor.fetch(_SQL["postpone_task"], *arguments))


async def suspend_task(executor: Executor, fence: Fence, *, not_before: datetime) -> None:
    """Give the task back inside the caller's transaction; no runner claims it before *not_before*.

    :func:`wake_tasks` lets the task be claimed earlier. Tasks are claimed in the order in which they became
    due; a *not_before* in the past counts as now. The worker must return after the transaction has committed.

    Raises:
        TaskLost: The worker does not hold the task any more; the caller's transaction must not commit.
    """
    rows = await executor.fetch(_SQL["suspend_task"], fence.task_id, fence.lease_token, not_before)
    _require_held(rows, fence)


async def wake_tasks(executor: Executor, task_ids: Sequence[UUID]) -> frozenset[str]:
    """Let suspended tasks be claimed at once, inside the caller's transaction; return the types of the tasks.

    One transaction may suspend a task because something has not happened yet, while another makes it happen
    and wakes the task. Both must begin by locking the same row: otherwise the task may be suspended after it
    was woken. The tasks
    are locked in the order of their ids; a transaction that calls this twice can deadlock with another one,
    and is repeated (:class:`relaybox.db.RetryTransaction`). Pass the types to
    :func:`relaybox.tasks.announce_tasks`.
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
    """Measure the open tasks of *task_types*."""
    [row] = await executor.fetch(_SQL["measure_backlog"], task_types, _COUNT_MAX)
    return TaskBacklog(
        pending=row["pending"],
        running=row["running"],
        expired=row["expired"],
        oldest_pending_s=row["oldest_pending_s"],
    )
