"""Threads over HTTP: begin, list, read, change, delete."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.http import Principal, UnitOfWork, ValidationFailed, json_body
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
from backend.workspace.core import IfMatch
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
    IfMatchHeader,
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

__all__ = ("add_discussion_routes", "reply_view")

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=200)]


def reply_view(reply: WorkspaceReply) -> ReplyView:
    """A reply as it is shown, without the replies to it; of a deleted one its place alone."""
    shown = reply.model_dump(include=set(ReplyView.model_fields))
    return ReplyView.model_validate(shown | ({"author_id": None} if reply.deleted_at else {}))


def add_discussion_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes under ``/discussions`` but the one that adds a reply."""
    _add_create(router, deps)
    _add_list(router, deps)
    _add_get(router, deps)
    _add_update(router, deps)
    _add_delete(router, deps)


async def _target_of(request: Request) -> UUID:
    return (await parse_body(request, CreateThread)).target


def _add_create(router: APIRouter, deps: RouteDependencies) -> None:
    begun = Depends(deps.writing("CreateThread", Role.COMMENTER, node=_target_of))

    @router.post(
        "/discussions",
        status_code=201,
        summary="Begin a discussion on a node, a chapter or a move",
        openapi_extra=json_body(CreateThread),
        responses={
            201: {"model": ThreadView},
            **documented_errors(*WRITE_ERRORS, ResourceNotFound, MoveNotFound),
        },
    )
    async def create(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        thread = await create_thread(
            deps.begin_command(request, unit), await parse_body(request, CreateThread)
        )
        location = f"{request.url.path}/{thread.id}"
        return json_response(201, _view(thread, 0), version=thread.version, location=location)

    _ = create


def _add_list(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/discussions",
        summary="The discussions on a node, or on one of its chapters",
        description="Of a node also those on its chapters and moves. Pinned ones first, then the newest.",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def threads(
        requester: Annotated[Requester, Depends(deps.requester)],
        target_id: UUID,
        resolved: bool | None = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> ThreadPage:
        access, chapter_id = await _target(deps, requester, target_id)
        access.require(Role.VIEWER)
        place = decode_cursor(cursor, _flag, cursor_time, UUID)
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(
                DISCUSSIONS_SQL["threads_page"], access.node.id, chapter_id, resolved, *place, limit + 1
            )
        return _page(rows, limit)

    _ = threads


async def _target(
    deps: RouteDependencies, requester: Requester, target_id: UUID
) -> tuple[Access, UUID | None]:
    async with deps.backbone.database.connection() as connection:
        rows = await connection.fetch(DISCUSSIONS_SQL["target"], target_id)
    # What is neither is looked for as a node, and answered like one.
    node_id, chapter_id = (rows[0]["node_id"], rows[0]["chapter_id"]) if rows else (target_id, None)
    return await deps.access(node_id, requester), chapter_id


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _page(rows: Any, limit: int) -> ThreadPage:
    threads = [(WorkspaceThread.model_validate_json(row["row"]), row["replies"]) for row in rows]
    items = [_view(thread, replies) for thread, replies in threads[:limit]]
    if len(threads) <= limit:
        return ThreadPage(items=items)
    last = items[-1]
    return ThreadPage(items=items, next_cursor=encode_cursor(last.pinned, last.created_at, last.id))


def _add_get(router: APIRouter, deps: RouteDependencies) -> None:
    thread_node = deps.node_of(DISCUSSIONS_SQL["thread_node"], "thread_id")

    @router.get(
        "/discussions/{thread_id}",
        summary="A discussion with its replies",
        responses={200: {"model": ThreadDetail}, **documented_errors(*RESOURCE_READ_ERRORS)},
        dependencies=[Depends(deps.reading(node=thread_node, resource="thread"))],
    )
    async def get(request: Request) -> Response:
        thread_id = path_id(request, "thread_id")
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(DISCUSSIONS_SQL["thread"], thread_id)
            replies = await connection.fetch(DISCUSSIONS_SQL["replies"], thread_id)
        if not rows:
            raise ResourceNotFound("thread")
        thread = _view(WorkspaceThread.model_validate_json(rows[0]["row"]), rows[0]["replies"])
        nested = _nested([WorkspaceReply.model_validate_json(row["row"]) for row in replies])
        return json_response(200, ThreadDetail(**thread.model_dump(), replies=nested), version=thread.version)

    _ = get


def _add_update(router: APIRouter, deps: RouteDependencies) -> None:
    thread_node = deps.node_of(DISCUSSIONS_SQL["thread_node"], "thread_id")
    begun = Depends(deps.writing("UpdateThread", Role.COMMENTER, node=thread_node, resource="thread"))

    @router.patch(
        "/discussions/{thread_id}",
        summary="Change a discussion, resolve it, pin it",
        description="kind, title and body are the author's; resolved and pinned are an editor's.",
        openapi_extra=json_body(UpdateThread),
        responses={
            200: {"model": ThreadView},
            **documented_errors(*RESOURCE_WRITE_ERRORS, *MATCH_ERRORS, NotTheAuthor),
        },
    )
    async def update(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await parse_body(request, UpdateThread)
        tx = deps.begin_command(request, unit)
        held = await update_thread(tx, path_id(request, "thread_id"), body, match)
        return json_response(200, _view(held.thread, held.replies), version=held.thread.version)

    _ = update


def _add_delete(router: APIRouter, deps: RouteDependencies) -> None:
    thread_node = deps.node_of(DISCUSSIONS_SQL["thread_node"], "thread_id")
    begun = Depends(deps.writing("DeleteThread", Role.COMMENTER, node=thread_node, resource="thread"))

    @router.delete(
        "/discussions/{thread_id}",
        status_code=204,
        summary="Delete a discussion with its replies",
        responses=documented_errors(*RESOURCE_WRITE_ERRORS),
    )
    async def delete(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        await delete_thread(deps.begin_command(request, unit), path_id(request, "thread_id"))
        return Response(status_code=204)

    _ = delete


def _view(thread: WorkspaceThread, replies: int) -> ThreadView:
    shown = thread.model_dump(include=set(ThreadView.model_fields))
    return ThreadView(**shown, target=thread.node_id, replies_count=replies)


def _nested(replies: list[WorkspaceReply]) -> list[ReplyView]:
    """*replies* below those that they answer, each level in the order given."""
    views = {reply.id: reply_view(reply) for reply in replies}
    for view in views.values():
        if view.parent_id is not None:
            views[view.parent_id].replies.append(view)
    return [view for view in views.values() if view.parent_id is None]
