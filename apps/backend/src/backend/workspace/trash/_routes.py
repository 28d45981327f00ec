"""Routes of the recycle bin: trash, list, restore, purge."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Request
from pydantic import StringConstraints
from relaybox.http import KEY_ERRORS, BadHeader, TokenMissing, ValidationFailed
from shared_types.workspace import WorkspaceEvent, WorkspaceNode
from shared_types.workspace_bin_api import FormerPlace, PurgeCounts, RestoredNode, TrashItem, TrashPage
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.core import CommandTransaction
from backend.workspace.errors import (
    NodeNotFound,
    NodeNotTrashed,
    NodeTrashed,
    NodeTrashedWithAncestor,
    TitleTaken,
    TreeTooDeep,
)
from backend.workspace.http import (
    MATCH_ERRORS,
    READ_ERRORS,
    CurrentRequester,
    Cursor,
    Dependencies,
    Match,
    PageLimit,
    Requester,
    begin_authorized_command,
    cursor_time,
    decode_cursor,
    dependencies_of,
    documented_errors,
    encode_cursor,
    json_response,
    path_id,
)
from backend.workspace.nodes import view_node
from backend.workspace.projection import AGGREGATE_TYPE
from backend.workspace.trash._bin import BIN_SQL, restore_node, trash_node
from backend.workspace.trash._purge import PURGE_COMMAND, PURGE_SQL, count_purge, purge_node

__all__ = ("trash_router",)

#: Errors of a write request without a body.
_KEYED_ERRORS = (*READ_ERRORS, BadHeader, *KEY_ERRORS)
#: PostgreSQL cannot store NUL in a text.
Reason = Annotated[str, StringConstraints(max_length=500, pattern=r"^[^\x00]*$")]
trash_router = APIRouter()


def _begin(
    command_type: str, require: Callable[[Access], None]
) -> Callable[..., Awaitable[CommandTransaction]]:
    """Return a dependency that begins a command on the node in the URL path.

    *require* raises an error if the sender's access does not allow the command.
    """

    async def authorize(request: Request, requester: Requester) -> None:
        require(await dependencies_of(request).access(path_id(request), requester))

    return begin_authorized_command(command_type, authorize)


@trash_router.delete(
    "/nodes/{node_id}",
    status_code=204,
    summary="Move a node with its subtree to the bin",
    responses=documented_errors(*_KEYED_ERRORS, *MATCH_ERRORS, NodeTrashed, ValidationFailed),
)
async def trash(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(_begin("TrashNode", Access.require_trashing))],
    match: Match,
    reason: Reason | None = None,
) -> Response:
    await trash_node(tx, path_id(request), match, reason)
    return Response(status_code=204)


@trash_router.get(
    "/trash",
    name="trash",
    summary="List the trashed nodes that you may restore, last trashed first",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def trash_list(
    dependencies: Dependencies, requester: CurrentRequester, limit: PageLimit = 50, cursor: Cursor = None
) -> TrashPage:
    if requester.subject is None:
        raise TokenMissing
    after = decode_cursor(cursor, cursor_time, UUID)
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(
            BIN_SQL["trash_page"], requester.subject, *after, limit + 1, requester.link_id
        )
    items = [_trash_item(row, dependencies.settings.trash_keep_days) for row in rows[:limit]]
    last = items[-1] if len(rows) > limit else None
    return TrashPage(items=items, next_cursor=encode_cursor(last.trashed_at, last.id) if last else None)


@trash_router.post(
    "/nodes/{node_id}/restore",
    summary="Restore a trashed node with the nodes that were trashed with it",
    responses={
        200: {"model": RestoredNode},
        **documented_errors(*_KEYED_ERRORS, NodeNotTrashed, NodeTrashedWithAncestor, TitleTaken, TreeTooDeep),
    },
)
async def restore(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(_begin("RestoreNode", Access.require_restoring))],
) -> Response:
    node_id = path_id(request)
    restored = await restore_node(tx, node_id)
    view = await view_node(tx, node_id)
    body = RestoredNode(
        **view.model_dump(),
        restored_to=view.parent_id,
        fallback=restored.fallback,
        count=restored.count,
    )
    return json_response(200, body, version=body.version)


async def _authorize_purge(request: Request, requester: Requester) -> None:
    node_id, dependencies = path_id(request), dependencies_of(request)
    try:
        access = await dependencies.access(node_id, requester)
    except NodeNotFound:
        # The user who purged the node may repeat the request with the same idempotency key, for its stored
        # response.
        async with dependencies.database.connection() as connection:
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


@trash_router.delete(
    "/nodes/{node_id}/purge",
    status_code=204,
    summary="Purge a trashed node with the nodes that were trashed with it",
    responses={
        200: {
            "model": PurgeCounts,
            "description": "With dry_run: the numbers of rows that a purge would delete; no row was deleted",
        },
        **documented_errors(*_KEYED_ERRORS, NodeNotTrashed, NodeTrashedWithAncestor, ValidationFailed),
    },
)
async def purge(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(begin_authorized_command(PURGE_COMMAND, _authorize_purge))],
    dry_run: bool = False,
) -> Response:
    node_id = path_id(request)
    if dry_run:
        return json_response(200, await count_purge(tx, node_id))
    await purge_node(tx, node_id)
    return Response(status_code=204)


def _trash_item(row: Any, keep_days: int) -> TrashItem:
    """Convert a row of the query ``trash_page``."""
    node, owned = WorkspaceNode.model_validate_json(row["row"]), row["owned"]
    # A constraint of the table ensures that the columns of a trashed node are all set or all null.
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
            # The query returns only nodes that the requester may restore.
            "may_restore": True,
            "may_purge": owned,
        }
    )
