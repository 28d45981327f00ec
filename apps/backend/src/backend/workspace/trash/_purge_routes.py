"""Purging over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from relaybox.http import Principal, UnitOfWork, ValidationFailed
from shared_types.workspace import WorkspaceEvent
from shared_types.workspace_bin_api import PurgeCounts
from starlette.responses import Response

from backend.workspace.errors import NodeNotFound, NodeNotTrashed, NodeTrashedWithAncestor
from backend.workspace.http import Requester, RouteDependencies, documented_errors, json_response, path_id
from backend.workspace.projection import AGGREGATE_TYPE
from backend.workspace.trash._purge import PURGE_COMMAND, PURGE_SQL, count_purge, purge_node
from backend.workspace.trash._routes import KEYED_ERRORS

__all__ = ("add_purge_routes",)


def add_purge_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """``DELETE /nodes/{id}/purge``."""

    async def admit(request: Request, requester: Requester) -> None:
        node_id = path_id(request)
        try:
            access = await deps.access(node_id, requester)
        except NodeNotFound:
            # Who has purged it may ask once more, under the same key: there is nobody else to ask.
            async with deps.backbone.database.connection() as connection:
                purged = await connection.fetch(
                    PURGE_SQL["find_purge_event"],
                    AGGREGATE_TYPE,
                    str(node_id),
                    WorkspaceEvent.NODE_PERMANENTLY_DELETED,
                    requester.subject,
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
            **documented_errors(*KEYED_ERRORS, NodeNotTrashed, NodeTrashedWithAncestor, ValidationFailed),
        },
    )
    async def purge(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], Depends(deps.admitting(PURGE_COMMAND, admit))],
        dry_run: bool = False,
    ) -> Response:
        tx, node_id = deps.begin_command(request, unit), path_id(request)
        if dry_run:
            return json_response(200, await count_purge(tx, node_id))
        await purge_node(tx, node_id)
        return Response(status_code=204)

    _ = purge
