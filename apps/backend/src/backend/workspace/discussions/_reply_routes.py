"""Replies and reactions over HTTP."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from relaybox.http import Principal, UnitOfWork, json_body
from shared_types.workspace import Role, WorkspaceReply
from shared_types.workspace_discussions_api import (
    CreateReply,
    EarlierBody,
    ReplyHistory,
    ReplyView,
    UpdateReply,
)
from starlette.responses import Response

from backend.workspace.core import IfMatch
from backend.workspace.discussions._discussions import DISCUSSIONS_SQL
from backend.workspace.discussions._emoji import parse_emoji
from backend.workspace.discussions._replies import (
    add_reaction,
    add_reply,
    delete_reply,
    edit_reply,
    remove_reaction,
)
from backend.workspace.discussions._routes import reply_view
from backend.workspace.errors import (
    DiscussionFull,
    EmojiInvalid,
    ReactionsFull,
    ReplyTooDeep,
    ResourceNotFound,
)
from backend.workspace.http import (
    MATCH_ERRORS,
    RESOURCE_READ_ERRORS,
    RESOURCE_WRITE_ERRORS,
    IfMatchHeader,
    RouteDependencies,
    documented_errors,
    json_response,
    parse_body,
    path_id,
)

__all__ = ("add_reply_routes",)


def add_reply_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """The routes under ``/replies``, and the one that adds a reply."""
    _add_create(router, deps)
    _add_update(router, deps)
    _add_delete(router, deps)
    _add_history(router, deps)
    _add_reactions(router, deps)


def _writing(deps: RouteDependencies, command_type: str) -> Any:
    reply_node = deps.node_of(DISCUSSIONS_SQL["reply_node"], "reply_id")
    return Depends(deps.writing(command_type, Role.COMMENTER, node=reply_node, resource="reply"))


def _add_create(router: APIRouter, deps: RouteDependencies) -> None:
    thread_node = deps.node_of(DISCUSSIONS_SQL["thread_node"], "thread_id")
    begun = Depends(deps.writing("AddReply", Role.COMMENTER, node=thread_node, resource="thread"))

    @router.post(
        "/discussions/{thread_id}/replies",
        status_code=201,
        summary="Reply to a discussion, or to a reply in it",
        openapi_extra=json_body(CreateReply),
        responses={
            201: {"model": ReplyView},
            **documented_errors(*RESOURCE_WRITE_ERRORS, ReplyTooDeep, DiscussionFull),
        },
    )
    async def create(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        body = await parse_body(request, CreateReply)
        reply = await add_reply(deps.begin_command(request, unit), path_id(request, "thread_id"), body)
        return json_response(201, reply_view(reply), version=reply.version)

    _ = create


def _add_update(router: APIRouter, deps: RouteDependencies) -> None:
    begun = _writing(deps, "EditReply")

    @router.patch(
        "/replies/{reply_id}",
        summary="Say it better; what was said before stays in the history",
        openapi_extra=json_body(UpdateReply),
        responses={200: {"model": ReplyView}, **documented_errors(*RESOURCE_WRITE_ERRORS, *MATCH_ERRORS)},
    )
    async def update(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await parse_body(request, UpdateReply)
        reply = await edit_reply(deps.begin_command(request, unit), path_id(request, "reply_id"), body, match)
        return json_response(200, reply_view(reply), version=reply.version)

    _ = update


def _add_delete(router: APIRouter, deps: RouteDependencies) -> None:
    begun = _writing(deps, "DeleteReply")

    @router.delete(
        "/replies/{reply_id}",
        status_code=204,
        summary="Delete a reply; answers to it stay",
        responses=documented_errors(*RESOURCE_WRITE_ERRORS),
    )
    async def delete(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        await delete_reply(deps.begin_command(request, unit), path_id(request, "reply_id"))
        return Response(status_code=204)

    _ = delete


def _add_history(router: APIRouter, deps: RouteDependencies) -> None:
    reply_node = deps.node_of(DISCUSSIONS_SQL["reply_node"], "reply_id")

    @router.get(
        "/replies/{reply_id}/history",
        summary="What a reply said before",
        responses={200: {"model": ReplyHistory}, **documented_errors(*RESOURCE_READ_ERRORS)},
        dependencies=[Depends(deps.reading(node=reply_node, resource="reply"))],
    )
    async def history(request: Request) -> Response:
        async with deps.backbone.database.connection() as connection:
            rows = await connection.fetch(DISCUSSIONS_SQL["reply"], path_id(request, "reply_id"))
        if not rows:
            raise ResourceNotFound("reply")
        reply = WorkspaceReply.model_validate_json(rows[0]["row"])
        items = [EarlierBody.model_validate(one) for one in reply.history]
        return json_response(200, ReplyHistory(items=items), version=reply.version)

    _ = history


def _add_reactions(router: APIRouter, deps: RouteDependencies) -> None:
    adding, removing = _writing(deps, "AddReaction"), _writing(deps, "RemoveReaction")

    @router.put(
        "/replies/{reply_id}/reactions/{emoji}",
        status_code=204,
        summary="React to a reply",
        responses=documented_errors(*RESOURCE_WRITE_ERRORS, EmojiInvalid, ReactionsFull),
    )
    async def react(request: Request, emoji: str, unit: Annotated[UnitOfWork[Principal], adding]) -> Response:
        await add_reaction(
            deps.begin_command(request, unit), path_id(request, "reply_id"), parse_emoji(emoji)
        )
        return Response(status_code=204)

    @router.delete(
        "/replies/{reply_id}/reactions/{emoji}",
        status_code=204,
        summary="Take a reaction back",
        responses=documented_errors(*RESOURCE_WRITE_ERRORS, EmojiInvalid),
    )
    async def unreact(
        request: Request, emoji: str, unit: Annotated[UnitOfWork[Principal], removing]
    ) -> Response:
        await remove_reaction(
            deps.begin_command(request, unit), path_id(request, "reply_id"), parse_emoji(emoji)
        )
        return Response(status_code=204)

    _ = react, unreact
