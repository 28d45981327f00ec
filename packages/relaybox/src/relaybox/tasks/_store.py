"""The statements on ``async_tasks``; each is one round-trip and usable inside any transaction."""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from pydantic_core import from_json, to_json
from relaybox_types.rows import AsyncTask

from relaybox.db import Executor, load_queries
from relaybox.tasks._errors import TaskLost
from relaybox.tasks._task import Fence, Task

__all__ = (
    "cancel_task",
    "claim_tasks",
    "complete_task",
    "create_task",
    "fail_task",
    "fetch_task",
    "postpone_task",
    "release_task",
    "renew_leases",
    "report_progress",
)

#: Seconds between two open tasks of one fairness key in the order of claims.
_FAIRNESS_GAP_S: Final = 3_600.0
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
    """Record the task of a command and mark the command PROCESSING, in one statement.

    *fairness_key* says whom the task is for, as a user's id: the open tasks of one key do not hold up those
    of another. Tasks without a key are claimed by their age alone.

    None means that the command no longer waits – it was withdrawn meanwhile, or has its task
    already – and nothing was written. The task exists if, and only if, *executor* commits.

    Raises:
        pydantic_core.PydanticSerializationError: *input_data* holds what JSON cannot.
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
    """The task as it stands; None when there is none. Who may see it is for the caller to say."""
    rows = await executor.fetch(_SQL["fetch_task"], task_id)
    if not rows:
        return None
    documents = {name: _document(rows[0][name]) for name in ("input_data", "result_data", "error_data")}
    return AsyncTask.model_validate({**rows[0], **documents})


async def cancel_task(executor: Executor, task_id: UUID) -> bool:
    """End the task without a result, inside the caller's transaction; False when it has ended already.

    Its worker, if it has one, learns of it by its next write, which is refused (G43). Its command still
    waits: :func:`relaybox.commands.settle_command` ends that.
    """
    return bool(await executor.fetch(_SQL["cancel_task"], task_id))


async def complete_task(
    executor: Executor,
    fence: Fence,
    *,
    result: Mapping[str, Any],
    input_data: Mapping[str, Any] | None = None,
) -> None:
    """End the task with *result*, inside the caller's transaction.

    *input_data* takes the place of what the task was given, which may be large, or somebody's to erase; None
    leaves it.

    Raises:
        TaskLost: the task is no longer this worker's; the caller's transaction must not commit.
    """
    documents = (_json(result), _replacement(input_data))
    rows = await executor.fetch(_SQL["complete_task"], fence.task_id, fence.lease_token, *documents)
    _still_held(rows, fence)


async def fail_task(
    executor: Executor,
    fence: Fence,
    *,
    error: Mapping[str, Any],
    input_data: Mapping[str, Any] | None = None,
) -> None:
    """End the task without a result, for the reason *error*, inside the caller's transaction.

    *input_data* as for :func:`complete_task`.

    Raises:
        TaskLost: the task is no longer this worker's; the caller's transaction must not commit.
    """
    documents = (_json(error), _replacement(input_data))
    rows = await executor.fetch(_SQL["fail_task"], fence.task_id, fence.lease_token, *documents)
    _still_held(rows, fence)


async def claim_tasks(
    executor: Executor, task_types: Sequence[str], *, tasks_max: int, lease_s: float
) -> list[Task]:
    """Take at most *tasks_max* tasks that wait or whose lease ran out, for *lease_s* seconds."""
    rows = await executor.fetch(_SQL["claim_tasks"], list(task_types), tasks_max, lease_s)
    return [_task(row) for row in rows]


async def renew_leases(executor: Executor, fences: Iterable[Fence], *, lease_s: float) -> set[UUID]:
    """Prolong the leases of *fences* by *lease_s* seconds from now; the ids that were lost or cancelled."""
    held = list(fences)
    ids, tokens = [fence.task_id for fence in held], [fence.lease_token for fence in held]
    rows = await executor.fetch(_SQL["renew_leases"], ids, tokens, lease_s)
    return {row["id"] for row in rows}


async def report_progress(executor: Executor, fence: Fence, percent: Decimal) -> Decimal:
    """Record *percent* unless more was recorded before; what is recorded now.

    Raises:
        TaskLost: the task is no longer this worker's.
    """
    rows = await executor.fetch(_SQL["report_progress"], fence.task_id, fence.lease_token, percent)
    _still_held(rows, fence)
    return rows[0]["progress"]


async def release_task(executor: Executor, fence: Fence) -> bool:
    """Hand the task to whoever comes next, at once, uncharged; False when it was not held any more."""
    return bool(await executor.fetch(_SQL["release_task"], fence.task_id, fence.lease_token))


async def postpone_task(
    executor: Executor, fence: Fence, *, pause_s: float, error: Mapping[str, Any]
) -> bool:
    """Let the task rest for *pause_s* seconds, then be taken again; False when it was not held any more."""
    arguments = (fence.task_id, fence.lease_token, pause_s, _json(error))
    return bool(await executor.fetch(_SQL["postpone_task"], *arguments))


def _json(document: Mapping[str, Any]) -> str:
    return to_json(document).decode()


def _replacement(document: Mapping[str, Any] | None) -> str | None:
    return None if document is None else _json(document)


def _document(text: str | None) -> dict[str, Any] | None:
    return None if text is None else from_json(text)


def _still_held(rows: Sequence[Mapping[str, Any]], fence: Fence) -> None:
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
