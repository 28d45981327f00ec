"""Routes of nodes: create, read, list, change, move."""

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.db import Executor
from relaybox.http import TokenMissing, ValidationFailed, json_body
from shared_types.workspace import Role, Visibility, WorkspaceNode
from shared_types.workspace_api import (
    CreateNode,
    MoveNode,
    NodeDetail,
    NodePage,
    NodePlace,
    NodeTree,
    NodeView,
    UpdateNode,
)
from starlette.responses import Response

from backend.workspace.access import LEVELS_MAX, Access, access_of
from backend.workspace.core import CommandTransaction
from backend.workspace.errors import ParentInvalid, TitleTaken, TreeRefused
from backend.workspace.http import (
    MATCH_ERRORS,
    READ_ERRORS,
    WRITE_ERRORS,
    CurrentRequester,
    Cursor,
    Dependencies,
    Match,
    PageLimit,
    Requester,
    RouteDependencies,
    begin_command,
    cursor_int,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
    json_response,
    node_access,
    parse_body,
    path_id,
)
from backend.workspace.nodes._lists import fetch_children, fetch_tree
from backend.workspace.nodes._nodes import NODES_SQL, create_node, move_node, update_node

__all__ = ("fetch_detail", "node_router", "node_view", "view_node")

_PLACE_ERRORS = (TreeRefused, TitleTaken)
node_router = APIRouter()


async def _parent_id(request: Request) -> UUID | None:
    return (await parse_body(request, CreateNode)).parent_id


@node_router.post(
    "/nodes",
    status_code=201,
    summary="Create a workspace, a folder or a study",
    openapi_extra=json_body(CreateNode),
    responses={201: {"model": NodeView}, **documented_errors(*WRITE_ERRORS, *_PLACE_ERRORS)},
)
async def create(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(begin_command("CreateNode", Role.EDITOR, node=_parent_id))],
) -> Response:
    node_id = await create_node(tx, await parse_body(request, CreateNode))
    view = await view_node(tx, node_id)
    return json_response(201, view, version=view.version, location=f"{request.url.path}/{node_id}")


@node_router.get(
    "/nodes",
    summary="List the children of a node, or your own trees",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def nodes(
    dependencies: Dependencies,
    requester: CurrentRequester,
    parent_id: UUID | None = None,
    limit: PageLimit = 50,
    cursor: Cursor = None,
) -> NodePage:
    if parent_id is None:
        return await _roots_page(dependencies, requester, limit, cursor)
    access = await dependencies.access(parent_id, requester)
    access.require(Role.VIEWER)
    return await _children_page(dependencies, access, requester, limit, cursor)


@node_router.get(
    "/nodes/{node_id}/children",
    summary="List the children of a node",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def children(
    dependencies: Dependencies,
    access: Annotated[Access, Depends(node_access())],
    requester: CurrentRequester,
    limit: PageLimit = 50,
    cursor: Cursor = None,
) -> NodePage:
    return await _children_page(dependencies, access, requester, limit, cursor)


# Declared before /nodes/{node_id}, which matches this path too.
@node_router.get(
    "/nodes/tree",
    summary="Read a node and all nodes below it",
    responses={200: {"model": NodeTree}, **documented_errors(*READ_ERRORS, ValidationFailed)},
)
async def tree(
    dependencies: Dependencies,
    requester: CurrentRequester,
    root_id: UUID,
    depth: Annotated[int, Query(ge=0, le=LEVELS_MAX)] = LEVELS_MAX,
) -> Response:
    access = await dependencies.access(root_id, requester)
    access.require(Role.VIEWER)
    async with dependencies.database.connection() as connection:
        items = await fetch_tree(connection, access, requester.link_id, depth=depth)
    return json_response(200, b'{"items":' + items.encode() + b"}")


@node_router.get(
    "/nodes/{node_id}",
    summary="Read a node, its path and your role on it",
    responses={200: {"model": NodeDetail}, **documented_errors(*READ_ERRORS)},
)
async def get(dependencies: Dependencies, access: Annotated[Access, Depends(node_access())]) -> Response:
    async with dependencies.database.connection() as connection:
        detail = await fetch_detail(connection, access)
    return json_response(200, detail, version=detail.version)


@node_router.patch(
    "/nodes/{node_id}",
    summary="Change title, description, layout or visibility of a node",
    openapi_extra=json_body(UpdateNode),
    responses={
        200: {"model": NodeView},
        **documented_errors(*WRITE_ERRORS, *MATCH_ERRORS, TitleTaken, ParentInvalid),
    },
)
async def update(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(begin_command("UpdateNode", Role.EDITOR))],
    match: Match,
) -> Response:
    node_id = path_id(request)
    await update_node(tx, node_id, await parse_body(request, UpdateNode), match)
    view = await view_node(tx, node_id)
    return json_response(200, view, version=view.version)


@node_router.post(
    "/nodes/{node_id}/move",
    summary="Move a node with its subtree below another parent",
    openapi_extra=json_body(MoveNode),
    responses={200: {"model": NodeView}, **documented_errors(*WRITE_ERRORS, *MATCH_ERRORS, *_PLACE_ERRORS)},
)
async def move(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(begin_command("MoveNode", Role.EDITOR))],
    match: Match,
) -> Response:
    node_id = path_id(request)
    await move_node(tx, node_id, await parse_body(request, MoveNode), match)
    view = await view_node(tx, node_id)
    return json_response(200, view, version=view.version)


def node_view(node: WorkspaceNode, visibility: Visibility, parent_id: UUID | None) -> NodeView:
    """Return the representation of a node in responses.

    Args:
        node: The row of the node.
        visibility: The node's own visibility, or the visibility that the node inherits.
        parent_id: The parent; None for a root, or if the requester may not read the parent.
    """
    fields = node.model_dump(include=set(NodeView.model_fields))
    return NodeView.model_validate(fields | {"visibility": visibility, "parent_id": parent_id})


async def view_node(tx: CommandTransaction, node_id: UUID) -> NodeView:
    """Return the representation of a node that is locked in *tx*, with the command's changes.

    Raises:
        NodeNotFound: The node does not exist.
    """
    access = await tx.access(node_id)
    return node_view(tx.node(node_id), access.visibility, access.parent_id)


async def fetch_detail(executor: Executor, access: Access) -> NodeDetail:
    """Return a node with its path and the role of the requester.

    Raises:
        NodeNotFound: The node was purged after *access* was read.
    """
    rows = await executor.fetch(NODES_SQL["node"], access.node.id)
    access_of(access.chain if rows else (), access.subject)
    view = node_view(WorkspaceNode.model_validate_json(rows[0]["row"]), access.visibility, access.parent_id)
    # Only ancestors that the requester may read: the titles of others must not be revealed.
    path = [NodePlace(id=one.id, title=one.title) for one in reversed(access.readable_above)]
    return NodeDetail(**view.model_dump(), role=access.role or Role.VIEWER, path=path)


async def _roots_page(
    dependencies: RouteDependencies, requester: Requester, limit: int, cursor: str | None
) -> NodePage:
    if requester.subject is None:
        raise TokenMissing
    created_at, last_id = decode_cursor(cursor, cursor_time, UUID)
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(
            NODES_SQL["roots_page"], requester.subject, created_at, last_id, limit + 1
        )
    return _page(rows, limit, lambda node: encode_cursor(node.created_at, node.id))


async def _children_page(
    dependencies: RouteDependencies, access: Access, requester: Requester, limit: int, cursor: str | None
) -> NodePage:
    after = decode_cursor(cursor, cursor_int, UUID)
    async with dependencies.database.connection() as connection:
        rows = await fetch_children(connection, access, requester.link_id, after=after, rows_max=limit + 1)
    return _page(rows, limit, lambda node: encode_cursor(node.position, node.id))


def _page(
    rows: Sequence[Mapping[str, Any]], limit: int, cursor_of: Callable[[WorkspaceNode], str]
) -> NodePage:
    found = [(WorkspaceNode.model_validate_json(row["row"]), Visibility(row["visibility"])) for row in rows]
    # parent_id may be shown: the nodes are roots, or children of a node that the requester may read.
    items = [node_view(node, visibility, node.parent_id) for node, visibility in found[:limit]]
    return NodePage(items=items, next_cursor=cursor_of(found[limit - 1][0]) if len(found) > limit else None)
