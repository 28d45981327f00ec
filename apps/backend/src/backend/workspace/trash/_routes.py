"""The recycle bin over HTTP: trash, list, restore."""

from collections.abc import Callable
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import StringConstraints
from relaybox.http import KEY_ERRORS, BadHeader, Principal, TokenMissing, UnitOfWork, ValidationFailed
from relaybox.settings import load_settings
from shared_types.workspace import WorkspaceNode
from shared_types.workspace_bin_api import FormerPlace, RestoredNode, TrashItem, TrashPage
from starlette.responses import Response

from backend.settings import WorkspaceSettings
from backend.workspace.access import Access
from backend.workspace.core import IfMatch
from backend.workspace.errors import (
    NodeNotTrashed,
    NodeTrashed,
    NodeTrashedWithAncestor,
    TitleTaken,
    TreeTooDeep,
)
from backend.workspace.http import (
    MATCH_ERRORS,
    READ_ERRORS,
    IfMatchHeader,
    Requester,
    RouteDependencies,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
    json_response,
    path_id,
)
from backend.workspace.nodes import node_view
from backend.workspace.trash._bin import BIN_SQL, restore_node, trash_node

__all__ = ("KEYED_ERRORS", "add_bin_routes")

#: Of a write without a body.
KEYED_ERRORS = (*READ_ERRORS, BadHeader, *KEY_ERRORS)
#: What PostgreSQL cannot store in a text is no reason.
Reason = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]


def add_bin_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes of the recycle bin that erase nothing."""
    _add_trash(router, deps)
    _add_list(router, deps, load_settings(WorkspaceSettings).trash_keep_days)
    _add_restore(router, deps)


def _item(row: Any, keep_days: int) -> TrashItem:
    """A row of the query ``trash_page`` as it is shown."""
    node, owned = WorkspaceNode.model_validate_json(row["row"]), row["owned"]
    # As the constraint of the table has it, these come with the marker.
    assert node.trashed_at is not None
    former_id = node.trash_path[-1] if node.trash_path and row["parent_seen"] else None
    former = FormerPlace(id=former_id, title=row["former_title"]) if node.trash_path else None
    return TrashItem.model_validate(
        {
            **node.model_dump(include={"id", "kind", "title", "trashed_at", "trashed_by"}),
            "reason": node.trash_reason,
            "batch_id": node.trash_batch_id,
            "count": node.trash_count,
            "former_parent": former,
            "purge_at": node.trashed_at + timedelta(days=keep_days) if keep_days else None,
            # Nobody sees it who may not.
            "may_restore": True,
            "may_purge": owned,
        }
    )


def _admitting(deps: RouteDependencies, command_type: str, require: Callable[[Access], None]) -> Any:
    """The unit of work, for whom *require* lets pass to the node in the path."""

    async def admit(request: Request, requester: Requester) -> None:
        require(await deps.access(path_id(request), requester))

    return Depends(deps.admitting(command_type, admit))


def _add_trash(router: APIRouter, deps: RouteDependencies) -> None:
    begun = _admitting(deps, "TrashNode", Access.require_trashing)

    @router.delete(
        "/nodes/{node_id}",
        status_code=204,
        summary="Put a node into the bin, with all that is below it",
        responses=documented_errors(*KEYED_ERRORS, *MATCH_ERRORS, NodeTrashed, ValidationFailed),
    )
    async def trash(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        if_match: IfMatchHeader,
        reason: Reason | None = None,
    ) -> Response:
        tx = deps.begin_command(request, unit)
        await trash_node(tx, path_id(request), IfMatch.parse(if_match), reason)
        return Response(status_code=204)

    _ = trash


def _add_list(router: APIRouter, deps: RouteDependencies, keep_days: int) -> None:
    @router.get(
        "/trash",
        summary="What you may take out of the bin, last trashed first",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def trash(
        requester: Annotated[Requester, Depends(deps.requester)],
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> TrashPage:
        if requester.subject is None:
            raise TokenMissing
        place = decode_cursor(cursor, cursor_time, UUID)
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(
                BIN_SQL["trash_page"], requester.subject, *place, limit + 1, requester.link_id
            )
        items = [_item(row, keep_days) for row in rows[:limit]]
        last = items[-1] if len(rows) > limit else None
        return TrashPage(items=items, next_cursor=encode_cursor(last.trashed_at, last.id) if last else None)

    _ = trash


def _add_restore(router: APIRouter, deps: RouteDependencies) -> None:
    begun = _admitting(deps, "RestoreNode", Access.require_restoring)

    @router.post(
        "/nodes/{node_id}/restore",
        summary="Take what was trashed together out of the bin",
        responses={
            200: {"model": RestoredNode},
            **documented_errors(
                *KEYED_ERRORS, NodeNotTrashed, NodeTrashedWithAncestor, TitleTaken, TreeTooDeep
            ),
        },
    )
    async def restore(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        tx, node_id = deps.begin_command(request, unit), path_id(request)
        restored = await restore_node(tx, node_id)
        access = await tx.access(node_id)
        view = node_view(tx.node(node_id), access.visibility, access.parent_id)
        body = RestoredNode(
            **view.model_dump(),
            restored_to=access.parent_id,
            fallback=restored.fallback,
            count=restored.count,
        )
        return json_response(200, body, version=body.version)

    _ = restore
