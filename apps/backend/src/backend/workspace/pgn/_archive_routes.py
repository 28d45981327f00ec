"""Exports of whole folders over HTTP: a task that makes a zip of PGN files."""

from typing import Annotated
from uuid import UUID, uuid4

from fastapi import APIRouter, Depends, Request
from relaybox.http import Principal, UnitOfWork, json_body
from relaybox_types.workspace import Role
from relaybox_types.workspace_pgn_api import ExportNode
from starlette.responses import Response

from backend.workspace.edge import WRITE_ERRORS, Edge, body_of, documented
from backend.workspace.errors import ChessNotInstalled, require_chess
from backend.workspace.pgn._task_routes import TASK_STARTED, task_started
from backend.workspace.pgn._tasks import EXPORT_COMMAND, EXPORT_TASK, Asker, ExportInput, begin_task

__all__ = ("add_archive_routes",)


def add_archive_routes(router: APIRouter, edge: Edge) -> None:
    """``POST /export``."""
    begun = Depends(edge.writing(Role.VIEWER, node=_node_of))

    @router.post(
        "/export",
        status_code=202,
        summary="Export a workspace, a folder or a study as a zip of PGN files",
        description="Of what you may read there; the task's result is the file.",
        openapi_extra=json_body(ExportNode),
        responses={**TASK_STARTED, **documented(*WRITE_ERRORS, ChessNotInstalled)},
    )
    async def export(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        require_chess()
        node_id, work = (await body_of(request, ExportNode)).node_id, edge.work(request, unit)
        task_id = await begin_task(
            work,
            EXPORT_TASK,
            # About itself: others may export the same node at the same time, and get something else.
            command=(EXPORT_COMMAND, uuid4(), {"node_id": str(node_id)}),
            node_id=node_id,
            input_data=ExportInput(asker=Asker.of(work)),
        )
        return task_started(request, task_id)

    _ = export


async def _node_of(request: Request) -> UUID:
    return (await body_of(request, ExportNode)).node_id
