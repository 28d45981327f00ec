"""Purging over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from relaybox.http import Principal, UnitOfWork, ValidationFailed
from shared_types.workspace import WorkspaceEvent
from shared_types.workspace_bin_api import PurgeCounts
from starlette.responses import Response

from backend.workspace.edge import Edge, Viewer, documented, id_in, json_answer
from backend.workspace.errors import NodeNotFound, NodeNotTrashed, NodeTrashedWithAncestor
from backend.workspace.history import AGGREGATE_TYPE
from backend.workspace.trash._purge import PURGE, PURGE_COMMAND, count_purge, purge_node
from backend.workspace.trash._routes import KEYED_ERRORS

__all__ = ("add_purge_routes",)


def add_purge_routes(router: APIRouter, edge: Edge) -> None:
    """``DELETE /nodes/{id}/purge``."""

    async def admit(request: Request, viewer: Viewer) -> None:
        node_id = id_in(request)
        try:
            access = await edge.access(node_id, viewer)
        except NodeNotFound:
            # Who has purged it may ask once more, under the same key: there is nobody else to ask.
            async with edge.backbone.database.connection() as connection:
                purged = await connection.fetch(
                    PURGE["purged"],
                    AGGREGATE_TYPE,
                    str(node_id),
                    WorkspaceEvent.NODE_PERMANENTLY_DELETED,
                    viewer.subject,
                )
            if not purged:
                raise
        else:
            access.require_purging()

    @router.delete(
        "/nodes/{node_id}/purge",
        status_code=204,
        summary="Erase what was trashed together, for good; or count it",
        responses={
            200: {"model": PurgeCounts, "description": "Of a dry run: nothing was written"},
            **documented(*KEYED_ERRORS, NodeNotTrashed, NodeTrashedWithAncestor, ValidationFailed),
        },
    )
    async def purge(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], Depends(edge.admitting(PURGE_COMMAND, admit))],
        dry_run: bool = False,
    ) -> Response:
        work, node_id = edge.work(request, unit), id_in(request)
        if dry_run:
            return json_answer(200, await count_purge(work, node_id))
        await purge_node(work, node_id)
        return Response(status_code=204)

    _ = purge
