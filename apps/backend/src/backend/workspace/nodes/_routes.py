"""Nodes over HTTP: create, read, list, change, move."""

from collections.abc import Callable
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.db import Executor
from relaybox.http import Principal, TokenMissing, UnitOfWork, ValidationFailed, json_body
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
from backend.workspace.core import IfMatch
from backend.workspace.errors import ParentInvalid, TitleTaken, TreeRefused
from backend.workspace.http import (
    MATCH_ERRORS,
    READ_ERRORS,
    WRITE_ERRORS,
    IfMatchHeader,
    Requester,
    RouteDependencies,
    cursor_int,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
    json_response,
    parse_body,
    path_id,
)
from backend.workspace.nodes._lists import fetch_children, fetch_tree
from backend.workspace.nodes._nodes import NODES_SQL, create_node, move_node, update_node

__all__ = ("add_node_routes", "fetch_detail", "node_view")

_PLACE_ERRORS = (TreeRefused, TitleTaken)
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


def node_view(node: WorkspaceNode, visibility: Visibility, parent_id: UUID | None) -> NodeView:
    """Show a node, with the *visibility* that holds there; *parent_id* is null unless it may be read."""
    shown = node.model_dump(include=set(NodeView.model_fields))
    return NodeView.model_validate(shown | {"visibility": visibility, "parent_id": parent_id})


def add_node_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes under ``/nodes`` that are not about the bin."""
    _add_create(router, deps)
    _add_lists(router, deps)
    _add_tree(router, deps)
    _add_get(router, deps)
    _add_update(router, deps)
    _add_move(router, deps)


async def _parent_of(request: Request) -> UUID | None:
    return (await parse_body(request, CreateNode)).parent_id


def _add_create(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("CreateNode", Role.EDITOR, node=_parent_of))

    @router.post(
        "/nodes",
        status_code=201,
        summary="Make a workspace, a folder or a study",
        openapi_extra=json_body(CreateNode),
        responses={201: {"model": NodeView}, **documented_errors(*WRITE_ERRORS, *_PLACE_ERRORS)},
    )
    async def create(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        body = await parse_body(request, CreateNode)
        tx = deps.begin_command(request, unit)
        node_id = await create_node(tx, body)
        view = _shown(tx.node(node_id), await tx.access(node_id))
        return json_response(201, view, version=view.version, location=f"{request.url.path}/{node_id}")

    _ = create


def _add_lists(router: APIRouter, deps: RouteDependencies) -> None:
    authenticated = Depends(deps.requester)

    @router.get(
        "/nodes",
        summary="The children of a node, or your own trees",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def nodes(
        requester: Annotated[Requester, authenticated],
        parent_id: UUID | None = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> NodePage:
        if parent_id is None:
            return await _roots(deps, requester, limit, cursor)
        access = await deps.access(parent_id, requester)
        access.require(Role.VIEWER)
        return await _children(deps, access, requester, limit, cursor)

    @router.get(
        "/nodes/{node_id}/children",
        summary="The children of a node",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def children(
        access: Annotated[Access, Depends(deps.reading())],
        requester: Annotated[Requester, authenticated],
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> NodePage:
        return await _children(deps, access, requester, limit, cursor)

    _ = nodes, children


def _add_tree(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/nodes/tree",
        summary="A node and everything below it",
        responses={200: {"model": NodeTree}, **documented_errors(*READ_ERRORS, ValidationFailed)},
    )
    async def tree(
        requester: Annotated[Requester, Depends(deps.requester)],
        root_id: UUID,
        depth: Annotated[int, Query(ge=0, le=LEVELS_MAX)] = LEVELS_MAX,
    ) -> Response:
        access = await deps.access(root_id, requester)
        access.require(Role.VIEWER)
        async with deps.backbone.database.connection() as connection:
            items = await fetch_tree(connection, access, requester.link_id, depth=depth)
        return json_response(200, b'{"items":' + items.encode() + b"}")

    _ = tree


def _add_get(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/nodes/{node_id}",
        summary="A node, its place, and what you may do there",
        responses={200: {"model": NodeDetail}, **documented_errors(*READ_ERRORS)},
    )
    async def get(access: Annotated[Access, Depends(deps.reading())]) -> Response:
        async with deps.backbone.database.connection() as connection:
            detail = await fetch_detail(connection, access)
        return json_response(200, detail, version=detail.version)

    _ = get


async def fetch_detail(executor: Executor, access: Access) -> NodeDetail:
    """A node with its place, and what who reads may do on it.

    Raises:
        NodeNotFound: it has gone since *access* was looked at.
    """
    rows = await executor.fetch(NODES_SQL["node"], access.node.id)
    access_of(access.chain if rows else (), access.subject)
    view = node_view(WorkspaceNode.model_validate_json(rows[0]["row"]), access.visibility, access.parent_id)
    return NodeDetail(**view.model_dump(), role=access.role or Role.VIEWER, path=_path(access))


def _add_update(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("UpdateNode", Role.EDITOR))

    @router.patch(
        "/nodes/{node_id}",
        summary="Change title, description, layout or visibility",
        openapi_extra=json_body(UpdateNode),
        responses={
            200: {"model": NodeView},
            **documented_errors(*WRITE_ERRORS, *MATCH_ERRORS, TitleTaken, ParentInvalid),
        },
    )
    async def update(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        if_match: IfMatchHeader,
    ) -> Response:
        node_id, match, body = (
            path_id(request),
            IfMatch.parse(if_match),
            await parse_body(request, UpdateNode),
        )
        tx = deps.begin_command(request, unit)
        await update_node(tx, node_id, body, match)
        view = _shown(tx.node(node_id), await tx.access(node_id))
        return json_response(200, view, version=view.version)

    _ = update


def _add_move(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("MoveNode", Role.EDITOR))

    @router.post(
        "/nodes/{node_id}/move",
        summary="Put a node below another parent, with all that is below it",
        openapi_extra=json_body(MoveNode),
        responses={
            200: {"model": NodeView},
            **documented_errors(*WRITE_ERRORS, *MATCH_ERRORS, *_PLACE_ERRORS),
        },
    )
    async def move(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        if_match: IfMatchHeader,
    ) -> Response:
        node_id, match, body = path_id(request), IfMatch.parse(if_match), await parse_body(request, MoveNode)
        tx = deps.begin_command(request, unit)
        await move_node(tx, node_id, body, match)
        view = _shown(tx.node(node_id), await tx.access(node_id))
        return json_response(200, view, version=view.version)

    _ = move


def _shown(node: WorkspaceNode, access: Access) -> NodeView:
    return node_view(node, access.visibility, access.parent_id)


async def _roots(deps: RouteDependencies, requester: Requester, limit: int, cursor: str | None) -> NodePage:
    if requester.subject is None:
        raise TokenMissing
    created_at, last_id = decode_cursor(cursor, cursor_time, UUID)
    async with deps.backbone.database.connection() as connection:
        rows = await connection.fetch(
            NODES_SQL["roots_page"], requester.subject, created_at, last_id, limit + 1
        )
    return _page(rows, limit, lambda node: encode_cursor(node.created_at, node.id))


async def _children(
    deps: RouteDependencies, access: Access, requester: Requester, limit: int, cursor: str | None
) -> NodePage:
    after = decode_cursor(cursor, cursor_int, UUID)
    async with deps.backbone.database.connection() as connection:
        rows = await fetch_children(connection, access, requester.link_id, after=after, rows_max=limit + 1)
    return _page(rows, limit, lambda node: encode_cursor(node.position, node.id))


def _page(rows: Any, limit: int, cursor: Callable[[WorkspaceNode], str]) -> NodePage:
    nodes = [(WorkspaceNode.model_validate_json(row["row"]), Visibility(row["visibility"])) for row in rows]
    # Roots, and the children of a node that the reader may read.
    items = [node_view(node, visibility, node.parent_id) for node, visibility in nodes[:limit]]
    return NodePage(items=items, next_cursor=cursor(nodes[limit - 1][0]) if len(nodes) > limit else None)


def _path(access: Access) -> list[NodePlace]:
    """The ancestors that the reader may see, root first: an invited guest learns no names further up."""
    return [NodePlace(id=one.id, title=one.title) for one in reversed(access.readable_above)]
