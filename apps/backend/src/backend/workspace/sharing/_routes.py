"""Routes of grants: list, create, change and revoke grants, and list the nodes shared with a user."""

from collections.abc import Set
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Query, Request
from relaybox.http import TokenMissing, ValidationFailed, json_body
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
from backend.workspace.core import CommandTransaction
from backend.workspace.errors import AlreadyShared, GrantRefused, ResourceNotFound, ShareLimitReached
from backend.workspace.http import (
    READ_ERRORS,
    WRITE_ERRORS,
    CurrentRequester,
    Cursor,
    Dependencies,
    PageLimit,
    begin_command,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
    json_response,
    node_access,
    parse_body,
    path_id,
)
from backend.workspace.nodes import node_view
from backend.workspace.sharing._sharing import SHARING_SQL, change_role, revoke_grant, share_node

__all__ = ("sharing_router",)

_USER_CHARS_MAX = 255
#: Maximum length of a cursor: it contains a user id, with up to four bytes per character, in base 64.
_CURSOR_CHARS_MAX = 2_000
#: A user id in a URL path: the subject of a bearer token, which may contain a slash, like a URL.
UserId = Annotated[str, Path(max_length=_USER_CHARS_MAX)]
_USER_PATH = "/share/{node_id}/users/{user_id:path}"
sharing_router = APIRouter()


@sharing_router.get(
    "/share/{node_id}",
    summary="List the grants and links of a node",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def view(
    dependencies: Dependencies,
    access: Annotated[Access, Depends(node_access(Role.ADMIN))],
    limit: PageLimit = 100,
    cursor: Annotated[str | None, Query(max_length=_CURSOR_CHARS_MAX)] = None,
) -> ShareView:
    [last_user] = decode_cursor(cursor, _cursor_user)
    async with dependencies.database.connection() as connection:
        granted = await connection.fetch(SHARING_SQL["grants_page"], access.node.id, last_user, limit + 1)
        linked = (
            await connection.fetch(SHARING_SQL["links_of_ancestors"], access.node.id)
            if cursor is None
            else ()
        )
    readable = {one.id for one in (access.node, *access.readable_above)}
    grants = [_grant_view(WorkspaceGrant.model_validate_json(row["row"]), readable) for row in granted]
    return ShareView(
        owner_id=access.owner,
        visibility=access.visibility,
        grants=grants[:limit],
        links=[_link_view(WorkspaceLink.model_validate_json(row["row"]), readable) for row in linked],
        next_cursor=encode_cursor(grants[limit - 1].user_id) if len(grants) > limit else None,
    )


@sharing_router.post(
    "/share/{node_id}/users",
    status_code=201,
    summary="Grant a user a role on a node",
    openapi_extra=json_body(ShareNode),
    responses={
        201: {"model": GrantView},
        **documented_errors(*WRITE_ERRORS, AlreadyShared, ShareLimitReached, GrantRefused),
    },
)
async def share(
    request: Request, tx: Annotated[CommandTransaction, Depends(begin_command("ShareNode", Role.ADMIN))]
) -> Response:
    grant = await share_node(tx, path_id(request), await parse_body(request, ShareNode))
    location = f"{request.url.path}/{quote(grant.user_id, safe='')}"
    return json_response(201, _grant_view(grant, {grant.node_id}), location=location)


@sharing_router.put(
    _USER_PATH,
    summary="Change the role that a grant gives",
    openapi_extra=json_body(ChangeRole),
    responses={
        200: {"model": GrantView},
        **documented_errors(*WRITE_ERRORS, ResourceNotFound, GrantRefused),
    },
)
async def change(
    request: Request,
    user_id: UserId,
    tx: Annotated[CommandTransaction, Depends(begin_command("ChangeRole", Role.ADMIN))],
) -> Response:
    node_id, body = path_id(request), await parse_body(request, ChangeRole)
    grant = await change_role(tx, node_id, _require_user_id(user_id), body)
    return json_response(200, _grant_view(grant, {grant.node_id}))


@sharing_router.delete(
    _USER_PATH,
    status_code=204,
    summary="Revoke a grant; users may revoke their own",
    responses=documented_errors(*WRITE_ERRORS, ResourceNotFound, GrantRefused),
)
async def revoke(
    request: Request,
    user_id: UserId,
    tx: Annotated[CommandTransaction, Depends(begin_command("RevokeGrant", Role.VIEWER))],
) -> Response:
    await revoke_grant(tx, path_id(request), _require_user_id(user_id))
    return Response(status_code=204)


@sharing_router.get(
    "/shared-with-me",
    summary="List the nodes that other users shared with you",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def shared(
    dependencies: Dependencies, requester: CurrentRequester, limit: PageLimit = 50, cursor: Cursor = None
) -> SharedPage:
    if requester.subject is None:
        raise TokenMissing
    granted_at, last_id = decode_cursor(cursor, cursor_time, UUID)
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(
            SHARING_SQL["shared_page"], requester.subject, granted_at, last_id, limit + 1
        )
    items = [
        SharedNode(
            **_shared_node_view(row).model_dump(),
            role=row["role"],
            shared_by=row["granted_by"],
            shared_at=row["granted_at"],
        )
        for row in rows[:limit]
    ]
    last = items[-1] if len(rows) > limit else None
    return SharedPage(items=items, next_cursor=encode_cursor(last.shared_at, last.id) if last else None)


def _require_user_id(text: str) -> str:
    """Return *text*, a user id from a URL path, if a grant can contain it.

    Raises:
        ResourceNotFound: The text is empty or contains a character that is not printable. PostgreSQL cannot
            even search for some of these, such as NUL.
    """
    if not (text and text.isprintable()):
        raise ResourceNotFound("grant")
    return text


def _cursor_user(part: object) -> str:
    if not (isinstance(part, str) and part.isprintable()):
        raise ValueError
    return part


def _grant_view(grant: WorkspaceGrant, readable: Set[UUID]) -> GrantView:
    """Return the representation of a grant; ``node_id`` is None if its node is not one of *readable*."""
    view = GrantView.model_validate(grant, from_attributes=True)
    return view if view.node_id in readable else view.model_copy(update={"node_id": None})


def _link_view(link: WorkspaceLink, readable: Set[UUID]) -> LinkView:
    view = LinkView.model_validate(link, from_attributes=True)
    return view if view.node_id in readable else view.model_copy(update={"node_id": None})


def _shared_node_view(row: Any) -> NodeView:
    node = WorkspaceNode.model_validate_json(row["row"])
    return node_view(node, Visibility(row["visibility"]), node.parent_id if row["parent_seen"] else None)
