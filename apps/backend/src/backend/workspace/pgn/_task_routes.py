"""Routes of tasks: the state of an import or an export, and the file of an export."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Path, Request
from pydantic_core import from_json
from relaybox.http import AUTH_ERRORS, DATABASE_ERRORS, TokenMissing
from relaybox_types.enums import TaskStatus
from shared_types.workspace import Role
from shared_types.workspace_pgn_api import WorkspaceTask, WorkspaceTaskStarted
from starlette.responses import Response

from backend.workspace.errors import ResourceNotFound, ResultNotReady, as_resource_not_found
from backend.workspace.http import (
    CurrentRequester,
    Dependencies,
    Requester,
    RouteDependencies,
    documented_errors,
    json_response,
)
from backend.workspace.pgn._tasks import EXPORT_TASK, TASKS_SQL

__all__ = ("TASK_STARTED", "task_router", "task_started")

#: Declared as text: an id that is not a UUID gets 404, like an unknown id.
TaskId = Annotated[str, Path(json_schema_extra={"format": "uuid"})]
_READ_ERRORS = (*AUTH_ERRORS, ResourceNotFound, *DATABASE_ERRORS)
_STATE = "workspace_task"
TASK_STARTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": WorkspaceTaskStarted,
        "description": "Accepted; a task executes the request",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The task's state"}},
    }
}
"""The argument ``responses`` of a route that may start a task."""
task_router = APIRouter()


def task_started(request: Request, task_id: UUID) -> Response:
    """Return the response 202 of a route that has started a task."""
    location = request.url_for(_STATE, task_id=str(task_id)).path
    return json_response(202, WorkspaceTaskStarted(task_id=task_id), location=location)


@task_router.get(
    "/tasks/{task_id}",
    name=_STATE,
    summary="Read the status of an import or an export",
    description="Users who may read the node may read the status. The user who started the task may read it"
    " until the task is COMPLETED; for an import that has FAILED, only if this user may read the parent.",
    responses=documented_errors(*_READ_ERRORS),
)
async def state(task_id: TaskId, dependencies: Dependencies, requester: CurrentRequester) -> WorkspaceTask:
    row = await _fetch_task(dependencies, task_id, requester)
    is_own = requester.subject is not None and row["asker"] == requester.subject
    # A result describes the node, which the user may no longer read. Before COMPLETED, the node may not
    # exist.
    if not is_own or row["status"] == TaskStatus.COMPLETED:
        await _require_node_access(dependencies, row, requester)
    elif row["refused_at"] is not None:
        # The error may describe the parent, for example a title that exists there.
        with as_resource_not_found("task"):
            (await dependencies.access(row["refused_at"], requester)).require_role(Role.VIEWER)
    return WorkspaceTask(
        task_id=row["id"],
        task_type=row["task_type"],
        status=row["status"],
        progress=float(row["progress"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        result=None if row["result"] is None else from_json(row["result"]),
        error=None if row["error"] is None else from_json(row["error"]),
    )


@task_router.get(
    "/tasks/{task_id}/result",
    summary="Download the file of an export",
    description="Only for the user who started the export, and only while this user may read the node. The"
    " file contains what this user may read.",
    response_class=Response,
    responses={
        200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
        **documented_errors(*_READ_ERRORS, ResultNotReady),
    },
)
async def result(task_id: TaskId, dependencies: Dependencies, requester: CurrentRequester) -> Response:
    row = await _fetch_task(dependencies, task_id, requester)
    is_own = requester.subject is not None and row["asker"] == requester.subject
    if not is_own or row["task_type"] != EXPORT_TASK:
        raise _task_not_found(requester)
    await _require_node_access(dependencies, row, requester)
    if row["status"] != TaskStatus.COMPLETED:
        raise ResultNotReady(row["status"])
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(TASKS_SQL["archive_file"], row["id"])
    if not rows or rows[0]["file"] is None:
        raise ResultNotReady(row["status"])
    headers = {"Content-Disposition": 'attachment; filename="export.zip"'}
    return Response(rows[0]["file"], headers=headers, media_type="application/zip")


async def _fetch_task(dependencies: RouteDependencies, text: str, requester: Requester) -> Mapping[str, Any]:
    try:
        task_id = UUID(text)
    except ValueError:
        raise _task_not_found(requester) from None
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(TASKS_SQL["task"], task_id)
    if not rows:
        raise _task_not_found(requester)
    return rows[0]


async def _require_node_access(
    dependencies: RouteDependencies, row: Mapping[str, Any], requester: Requester
) -> None:
    """Require that *requester* may read the node of a task; the error is that of a missing task."""
    with as_resource_not_found("task"):
        (await dependencies.access(row["aggregate_id"], requester)).require(Role.VIEWER)


def _task_not_found(requester: Requester) -> Exception:
    """Return the error for a task that does not exist, or that *requester* may not read."""
    return TokenMissing() if requester.is_anonymous else ResourceNotFound("task")
