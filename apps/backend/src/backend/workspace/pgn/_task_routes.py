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

from backend.workspace.edge import Edge, Viewer, documented, json_answer
from backend.workspace.errors import ResultNotReady, ThingNotFound, missing
from backend.workspace.pgn._tasks import EXPORT_TASK, TASKS

__all__ = ("TASK_STARTED", "add_task_routes", "task_started")

#: One that is no UUID is no task's, and answered as such.
Id = Annotated[str, Path(json_schema_extra={"format": "uuid"})]
_READ_ERRORS = (*AUTH_ERRORS, ThingNotFound, *DATABASE_ERRORS)
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
    return json_answer(202, WorkspaceTaskStarted(task_id=task_id), location=location)


def add_task_routes(router: APIRouter, edge: Edge) -> None:
    """The routes under ``/tasks``."""
    _add_state(router, edge)
    _add_result(router, edge)


def _add_state(router: APIRouter, edge: Edge) -> None:
    @router.get(
        "/tasks/{task_id}",
        name=_STATE,
        summary="Where an import or an export stands",
        description="For who may read its node, and for who started it until it has made something;"
        " of an import that has FAILED, as long as they may read its parent.",
        responses=documented(*_READ_ERRORS),
    )
    async def state(task_id: Id, viewer: Annotated[Viewer, Depends(edge.viewer)]) -> WorkspaceTask:
        row = await _task(edge, task_id, viewer)
        own = viewer.subject is not None and row["asker"] == viewer.subject
        # What it has made tells of the node, which may be lost to who started it; before, there may be none.
        if not own or row["status"] == TaskStatus.COMPLETED:
            await _require_node(edge, row, viewer)
        elif row["refused_at"] is not None:
            # So does the refusal of its parent, as by what is there already.
            with missing("task"):
                (await edge.access(row["refused_at"], viewer)).require_role(Role.VIEWER)
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


def _add_result(router: APIRouter, edge: Edge) -> None:
    @router.get(
        "/tasks/{task_id}/result",
        summary="The file that an export has made",
        description="For who started it: it holds what they may read. It goes with the access to the node.",
        response_class=Response,
        responses={
            200: {"content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}}},
            **documented(*_READ_ERRORS, ResultNotReady),
        },
    )
    async def result(task_id: Id, viewer: Annotated[Viewer, Depends(edge.viewer)]) -> Response:
        row = await _task(edge, task_id, viewer)
        if viewer.subject is None or row["asker"] != viewer.subject or row["task_type"] != EXPORT_TASK:
            raise _missing(viewer)
        await _require_node(edge, row, viewer)
        if row["status"] != TaskStatus.COMPLETED:
            raise ResultNotReady(row["status"])
        async with edge.backbone.database.connection() as connection:
            rows = await connection.fetch(TASKS["result"], row["id"])
        if not rows or rows[0]["file"] is None:
            raise ResultNotReady(row["status"])
        headers = {"Content-Disposition": 'attachment; filename="export.zip"'}
        return Response(rows[0]["file"], headers=headers, media_type="application/zip")

    _ = result


async def _task(edge: Edge, text: str, viewer: Viewer) -> Mapping[str, Any]:
    try:
        task_id = UUID(text)
    except ValueError:
        raise _missing(viewer) from None
    async with edge.backbone.database.connection() as connection:
        rows = await connection.fetch(TASKS["task"], task_id)
    if not rows:
        raise _missing(viewer)
    return rows[0]


async def _require_node(edge: Edge, row: Mapping[str, Any], viewer: Viewer) -> None:
    """Let only those pass who may read the node of a task; for others it does not exist."""
    with missing("task"):
        (await edge.access(row["aggregate_id"], viewer)).require(Role.VIEWER)


def _missing(viewer: Viewer) -> Exception:
    """The error for a task that does not exist, or is hidden from *viewer*."""
    return TokenMissing() if viewer.subject is None and viewer.link_id is None else ThingNotFound("task")
