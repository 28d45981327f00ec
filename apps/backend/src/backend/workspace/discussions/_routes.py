"""Routes of threads: create, list, read, change, delete."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.http import ValidationFailed, json_body
from shared_types.workspace import Role, WorkspaceReply, WorkspaceThread
from shared_types.workspace_discussions_api import (
    CreateThread,
    ReplyView,
    ThreadDetail,
    ThreadPage,
    ThreadView,
    UpdateThread,
)
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.core import CommandTransaction
from backend.workspace.discussions._discussions import (
    DISCUSSIONS_SQL,
    create_thread,
    delete_thread,
    update_thread,
)
from backend.workspace.errors import MoveNotFound, NotTheAuthor, ResourceNotFound
from backend.workspace.http import (
    MATCH_ERRORS,
    READ_ERRORS,
    RESOURCE_READ_ERRORS,
    RESOURCE_WRITE_ERRORS,
    WRITE_ERRORS,
    CurrentRequester,
    Cursor,
    Dependencies,
    Match,
    Requester,
    RouteDependencies,
    begin_command,
    cursor_time,
    decode_cursor,
    documented_errors,
    encode_cursor,
    find_node_by,
    json_response,
    node_access,
    parse_body,
    path_id,
)

__all__ = ("begin_thread_command", "discussion_router", "reply_view")

_thread_node = find_node_by(DISCUSSIONS_SQL["thread_node"], "thread_id")
discussion_router = APIRouter()


def begin_thread_command(command_type: str) -> Any:
    """Return a dependency that requires a commenter, and begins a command on the thread in the URL path.

    Use the result as ``Annotated[CommandTransaction, begin_thread_command(...)]``.
    """
    return Depends(begin_command(command_type, Role.COMMENTER, node=_thread_node, resource="thread"))


async def _target(request: Request) -> UUID:
    return (await parse_body(request, CreateThread)).target


@discussion_router.post(
    "/discussions",
    status_code=201,
    summary="Create a discussion on a node, a chapter or a move",
    openapi_extra=json_body(CreateThread),
    responses={
        201: {"model": ThreadView},
        **documented_errors(*WRITE_ERRORS, ResourceNotFound, MoveNotFound),
    },
)
async def create(
    request: Request,
    tx: Annotated[CommandTransaction, Depends(begin_command("CreateThread", Role.COMMENTER, node=_target))],
) -> Response:
    thread = await create_thread(tx, await parse_body(request, CreateThread))
    location = f"{request.url.path}/{thread.id}"
    return json_response(201, _thread_view(thread, 0), version=thread.version, location=location)


@discussion_router.get(
    "/discussions",
    summary="List the discussions on a node, or on one of its chapters",
    description="For a node, the list includes the discussions on its chapters and moves. Pinned discussions"
    " are first, then the newest.",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def threads(
    dependencies: Dependencies,
    requester: CurrentRequester,
    target_id: UUID,
    resolved: bool | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    cursor: Cursor = None,
) -> ThreadPage:
    access, chapter_id = await _target_access(dependencies, requester, target_id)
    access.require(Role.VIEWER)
    after = decode_cursor(cursor, _cursor_flag, cursor_time, UUID)
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(
            DISCUSSIONS_SQL["threads_page"], access.node.id, chapter_id, resolved, *after, limit + 1
        )
    return _page(rows, limit)


@discussion_router.get(
    "/discussions/{thread_id}",
    summary="Read a discussion with its replies",
    responses={200: {"model": ThreadDetail}, **documented_errors(*RESOURCE_READ_ERRORS)},
    dependencies=[Depends(node_access(node=_thread_node, resource="thread"))],
)
async def get(request: Request, dependencies: Dependencies) -> Response:
    thread_id = path_id(request, "thread_id")
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(DISCUSSIONS_SQL["thread"], thread_id)
        replies = await connection.fetch(DISCUSSIONS_SQL["replies"], thread_id)
    if not rows:
        raise ResourceNotFound("thread")
    thread = _thread_view(WorkspaceThread.model_validate_json(rows[0]["row"]), rows[0]["replies"])
    nested = _nest([WorkspaceReply.model_validate_json(row["row"]) for row in replies])
    return json_response(200, ThreadDetail(**thread.model_dump(), replies=nested), version=thread.version)


@discussion_router.patch(
    "/discussions/{thread_id}",
    summary="Change, resolve or pin a discussion",
    description="The author may change kind, title and body; an editor may change resolved and pinned.",
    openapi_extra=json_body(UpdateThread),
    responses={
        200: {"model": ThreadView},
        **documented_errors(*RESOURCE_WRITE_ERRORS, *MATCH_ERRORS, NotTheAuthor),
    },
)
async def update(
    request: Request,
    tx: Annotated[CommandTransaction, begin_thread_command("UpdateThread")],
    match: Match,
) -> Response:
    body = await parse_body(request, UpdateThread)
    updated = await update_thread(tx, path_id(request, "thread_id"), body, match)
    view = _thread_view(updated.thread, updated.replies)
    return json_response(200, view, version=updated.thread.version)


@discussion_router.delete(
    "/discussions/{thread_id}",
    status_code=204,
    summary="Delete a discussion with its replies",
    responses=documented_errors(*RESOURCE_WRITE_ERRORS),
)
async def delete(
    request: Request, tx: Annotated[CommandTransaction, begin_thread_command("DeleteThread")]
) -> Response:
    await delete_thread(tx, path_id(request, "thread_id"))
    return Response(status_code=204)


def reply_view(reply: WorkspaceReply) -> ReplyView:
    """Return the representation of a reply, without nested replies; if deleted, without the author."""
    fields = reply.model_dump(include=set(ReplyView.model_fields))
    return ReplyView.model_validate(fields | ({"author_id": None} if reply.deleted_at else {}))


async def _target_access(
    dependencies: RouteDependencies, requester: Requester, target_id: UUID
) -> tuple[Access, UUID | None]:
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(DISCUSSIONS_SQL["target"], target_id)
    # Treat an unknown id as the id of a node, so that the error is that of an unknown node.
    node_id, chapter_id = (rows[0]["node_id"], rows[0]["chapter_id"]) if rows else (target_id, None)
    return await dependencies.access(node_id, requester), chapter_id


def _cursor_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _page(rows: Any, limit: int) -> ThreadPage:
    found = [(WorkspaceThread.model_validate_json(row["row"]), row["replies"]) for row in rows]
    items = [_thread_view(thread, replies) for thread, replies in found[:limit]]
    if len(found) <= limit:
        return ThreadPage(items=items)
    last = items[-1]
    return ThreadPage(items=items, next_cursor=encode_cursor(last.pinned, last.created_at, last.id))


def _thread_view(thread: WorkspaceThread, replies: int) -> ThreadView:
    fields = thread.model_dump(include=set(ThreadView.model_fields))
    return ThreadView(**fields, target=thread.node_id, replies_count=replies)


def _nest(replies: list[WorkspaceReply]) -> list[ReplyView]:
    """Return the representations of *replies* with nested replies; siblings keep their order."""
    views = {reply.id: reply_view(reply) for reply in replies}
    for view in views.values():
        if view.parent_id is not None:
            views[view.parent_id].replies.append(view)
    return [view for view in views.values() if view.parent_id is None]
