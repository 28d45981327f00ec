"""Sharing over HTTP: who may do what on a node, and what was shared with oneself."""

from collections.abc import Set
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from relaybox.http import Principal, TokenMissing, UnitOfWork, ValidationFailed, json_body
from shared_types.workspace import Role, Visibility, WorkspaceGrant, WorkspaceLink, WorkspaceNode
from shared_types.workspace_api import NodeView
from shared_types.workspace_sharing_api import (
    ChangeRole,
    GrantView,
    LinkView,
    SharedNode,
    SharedPage,
    ShareNode,
    ShareView,
)
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.errors import AlreadyShared, GrantRefused, ResourceNotFound, ShareLimitReached
from backend.workspace.http import (
    READ_ERRORS,
    WRITE_ERRORS,
    Requester,
    RouteDependencies,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
    json_response,
    parse_body,
    path_id,
)
from backend.workspace.nodes import node_view
from backend.workspace.sharing._sharing import SHARING_SQL, change_role, revoke_grant, share_node

__all__ = ("add_sharing_routes",)

_USER_CHARS_MAX = 255
#: Holds a user's name, four bytes a character, in base 64.
_CURSOR_CHARS_MAX = 2_000
Limit = Annotated[int, Query(ge=1, le=200)]
#: A subject may hold a slash, as an address does.
UserId = Annotated[str, Path(max_length=_USER_CHARS_MAX)]
_USER_PATH = "/share/{node_id}/users/{user_id:path}"


def add_sharing_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes of grants, and ``GET /share/{node_id}`` and ``/shared-with-me``."""
    _add_view(router, deps)
    _add_share(router, deps)
    _add_change(router, deps)
    _add_revoke(router, deps)
    _add_shared(router, deps)


def _add_view(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/share/{node_id}",
        summary="Who may do what on a node, and its links",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def view(
        access: Annotated[Access, Depends(deps.reading(Role.ADMIN))],
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(max_length=_CURSOR_CHARS_MAX)] = None,
    ) -> ShareView:
        [last_user] = decode_cursor(cursor, _user)
        async with deps.backbone.database.connection() as connection:
            granted = await connection.fetch(SHARING_SQL["grants_page"], access.node.id, last_user, limit + 1)
            linked = (
                await connection.fetch(SHARING_SQL["links_of_ancestors"], access.node.id)
                if cursor is None
                else ()
            )
        shown = {one.id for one in (access.node, *access.readable_above)}
        grants = [_grant_view(WorkspaceGrant.model_validate_json(row["row"]), shown) for row in granted]
        return ShareView(
            owner_id=access.owner,
            visibility=access.visibility,
            grants=grants[:limit],
            links=[_link_view(WorkspaceLink.model_validate_json(row["row"]), shown) for row in linked],
            next_cursor=encode_cursor(grants[limit - 1].user_id) if len(grants) > limit else None,
        )

    _ = view


def _add_share(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("ShareNode", Role.ADMIN))

    @router.post(
        "/share/{node_id}/users",
        status_code=201,
        summary="Grant a role to somebody",
        openapi_extra=json_body(ShareNode),
        responses={
            201: {"model": GrantView},
            **documented_errors(*WRITE_ERRORS, AlreadyShared, ShareLimitReached, GrantRefused),
        },
    )
    async def share(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        node_id, body = path_id(request), await parse_body(request, ShareNode)
        grant = await share_node(deps.begin_command(request, unit), node_id, body)
        location = f"{request.url.path}/{quote(grant.user_id, safe='')}"
        return json_response(201, _grant_view(grant, {grant.node_id}), location=location)

    _ = share


def _add_change(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("ChangeRole", Role.ADMIN))

    @router.put(
        _USER_PATH,
        summary="Change what is granted to somebody",
        openapi_extra=json_body(ChangeRole),
        responses={
            200: {"model": GrantView},
            **documented_errors(*WRITE_ERRORS, ResourceNotFound, GrantRefused),
        },
    )
    async def change(
        request: Request, user_id: UserId, unit: Annotated[UnitOfWork[Principal], begun]
    ) -> Response:
        node_id, body = path_id(request), await parse_body(request, ChangeRole)
        grant = await change_role(deps.begin_command(request, unit), node_id, _known(user_id), body)
        return json_response(200, _grant_view(grant, {grant.node_id}))

    _ = change


def _add_revoke(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("RevokeGrant", Role.VIEWER))

    @router.delete(
        _USER_PATH,
        status_code=204,
        summary="Take away what is granted to somebody, or leave",
        responses=documented_errors(*WRITE_ERRORS, ResourceNotFound, GrantRefused),
    )
    async def revoke(
        request: Request, user_id: UserId, unit: Annotated[UnitOfWork[Principal], begun]
    ) -> Response:
        await revoke_grant(deps.begin_command(request, unit), path_id(request), _known(user_id))
        return Response(status_code=204)

    _ = revoke


def _add_shared(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/shared-with-me",
        summary="What others have granted to you",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def shared(
        requester: Annotated[Requester, Depends(deps.requester)],
        limit: Limit = 50,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> SharedPage:
        if requester.subject is None:
            raise TokenMissing
        granted_at, last_id = decode_cursor(cursor, cursor_time, UUID)
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(
                SHARING_SQL["shared_page"], requester.subject, granted_at, last_id, limit + 1
            )
        items = [
            SharedNode(
                **_view(row).model_dump(),
                role=row["role"],
                shared_by=row["granted_by"],
                shared_at=row["granted_at"],
            )
            for row in rows[:limit]
        ]
        last = items[-1] if len(rows) > limit else None
        return SharedPage(items=items, next_cursor=encode_cursor(last.shared_at, last.id) if last else None)

    _ = shared


def _known(user_id: str) -> str:
    """A user who can have a grant; nobody else needs to be looked for, nor could be (NUL).

    Raises:
        ResourceNotFound: it is none.
    """
    if not (user_id and user_id.isprintable()):
        raise ResourceNotFound("grant")
    return user_id


def _user(part: object) -> str:
    if not (isinstance(part, str) and part.isprintable()):
        raise ValueError
    return part


def _grant_view(grant: WorkspaceGrant, shown: Set[UUID]) -> GrantView:
    """Show a grant; its node is null unless it is among those *shown*, which the caller may read."""
    view = GrantView.model_validate(grant, from_attributes=True)
    return view if view.node_id in shown else view.model_copy(update={"node_id": None})


def _link_view(link: WorkspaceLink, shown: Set[UUID]) -> LinkView:
    view = LinkView.model_validate(link, from_attributes=True)
    return view if view.node_id in shown else view.model_copy(update={"node_id": None})


def _view(row: Any) -> NodeView:
    node = WorkspaceNode.model_validate_json(row["row"])
    return node_view(node, Visibility(row["visibility"]), node.parent_id if row["parent_seen"] else None)
