"""Tasks over HTTP: where they stand, and the file that one has made."""

from collections.abc import Mapping
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request
from pydantic_core import from_json
from relaybox.http import AUTH_ERRORS, DATABASE_ERRORS, TokenMissing
from relaybox_types.enums import TaskStatus
from shared_types.workspace import Role
from shared_types.workspace_pgn_api import WorkspaceTask, WorkspaceTaskStarted
from starlette.responses import Response

from backend.workspace.errors import ResourceNotFound, ResultNotReady, as_resource_not_found
from backend.workspace.http import Requester, RouteDependencies, documented_errors, json_response
from backend.workspace.pgn._tasks import EXPORT_TASK, TASKS_SQL

__all__ = ("TASK_STARTED", "add_task_routes", "task_started")

#: One that is no UUID is no task's, and answered as such.
Id = Annotated[str, Path(json_schema_extra={"format": "uuid"})]
_READ_ERRORS = (*AUTH_ERRORS, ResourceNotFound, *DATABASE_ERRORS)
_STATE = "workspace_task"
TASK_STARTED: dict[int | str, dict[str, Any]] = {
    202: {
        "model": WorkspaceTaskStarted,
        "description": "Accepted; a worker does it",
        "headers": {"Location": {"schema": {"type": "string"}, "description": "The task's state"}},
    }
}
"""How a route documents that it may begin a task."""


def task_started(request: Request, task_id: UUID) -> Response:
    """The answer of a route that has begun a task."""
    location = request.url_for(_STATE, task_id=str(task_id)).path
    return json_response(202, WorkspaceTaskStarted(task_id=task_id), location=location)


def add_task_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes under ``/tasks``."""
    _add_state(router, deps)
    _add_result(router, deps)


def _add_state(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/tasks/{task_id}",
        name=_STATE,
        summary="Where an import or an export stands",
        description="For who may read its node, and for who started it until it has made something;"
        " of an import that has FAILED, as long as they may read its parent.",
        responses=documented_errors(*_READ_ERRORS),
    )
    async def state(task_id: Id, requester: Annotated[Requester, Depends(deps.requester)]) -> WorkspaceTask:
        row = await _task(deps, task_id, requester)
        own = requester.subject is not None and row["asker"] == requester.subject
        # What it has made tells of the node, which may be lost to who started it; before, there may be none.
        if not own or row["status"] == TaskStatus.COMPLETED:
            await _require_node(deps, row, requester)
        elif row["refused_at"] is not None:
            # So does the refusal of its parent, as by what is there already.
            with as_resource_not_found("task"):
                (await deps.access(row["refused_at"], requester)).require_role(Role.VIEWER)
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

    _ = state


def _add_result(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/tasks/{task_id}/result",
        summary="The file that an export has made",
        description="For who started it: it holds what they may read. It goes with the access to the node.",
        response_class=Response,
        responses={
            200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
            **documented_errors(*_READ_ERRORS, ResultNotReady),
        },
    )
    async def result(task_id: Id, requester: Annotated[Requester, Depends(deps.requester)]) -> Response:
        row = await _task(deps, task_id, requester)
        if requester.subject is None or row["asker"] != requester.subject or row["task_type"] != EXPORT_TASK:
            raise _missing(requester)
        await _require_node(deps, row, requester)
        if row["status"] != TaskStatus.COMPLETED:
            raise ResultNotReady(row["status"])
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(TASKS_SQL["archive_file"], row["id"])
        if not rows or rows[0]["file"] is None:
            raise ResultNotReady(row["status"])
        headers = {"Content-Disposition": 'attachment; filename="export.zip"'}
        return Response(rows[0]["file"], headers=headers, media_type="application/zip")

    _ = result


async def _task(deps: RouteDependencies, text: str, requester: Requester) -> Mapping[str, Any]:
    try:
        task_id = UUID(text)
    except ValueError:
        raise _missing(requester) from None
    async with deps.backbone.database.connection() as connection:
        rows = await connection.fetch(TASKS_SQL["task"], task_id)
    if not rows:
        raise _missing(requester)
    return rows[0]


async def _require_node(deps: RouteDependencies, row: Mapping[str, Any], requester: Requester) -> None:
    """Let only those pass who may read the node of a task; for others it does not exist."""
    with as_resource_not_found("task"):
        (await deps.access(row["aggregate_id"], requester)).require(Role.VIEWER)


def _missing(requester: Requester) -> Exception:
    """The error for a task that does not exist, or is hidden from *viewer*."""
    return (
        TokenMissing()
        if requester.subject is None and requester.link_id is None
        else ResourceNotFound("task")
    )
