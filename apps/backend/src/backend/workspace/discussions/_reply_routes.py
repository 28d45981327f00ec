"""Routes of replies and reactions."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from relaybox.http import json_body
from shared_types.workspace import Role, WorkspaceReply
from shared_types.workspace_discussions_api import (
    CreateReply,
    EarlierBody,
    ReplyHistory,
    ReplyView,
    UpdateReply,
)
from starlette.responses import Response

from backend.workspace.core import CommandTransaction
from backend.workspace.discussions._discussions import DISCUSSIONS_SQL
from backend.workspace.discussions._emoji import parse_emoji
from backend.workspace.discussions._replies import (
    add_reaction,
    add_reply,
    delete_reply,
    edit_reply,
    remove_reaction,
)
from backend.workspace.discussions._routes import begin_thread_command, reply_view
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
    Dependencies,
    Match,
    begin_command,
    documented_errors,
    find_node_by,
    json_response,
    node_access,
    parse_body,
    path_id,
)

__all__ = ("reply_router",)

_reply_node = find_node_by(DISCUSSIONS_SQL["reply_node"], "reply_id")
reply_router = APIRouter()


def _begin(command_type: str) -> Any:
    """Return a dependency that requires a commenter, and begins a command on the reply in the URL path."""
    return Depends(begin_command(command_type, Role.COMMENTER, node=_reply_node, resource="reply"))


@reply_router.post(
    "/discussions/{thread_id}/replies",
    status_code=201,
    summary="Reply to a discussion, or to a reply in it",
    openapi_extra=json_body(CreateReply),
    responses={
        201: {"model": ReplyView},
        **documented_errors(*RESOURCE_WRITE_ERRORS, ReplyTooDeep, DiscussionFull),
    },
)
async def create(
    request: Request, tx: Annotated[CommandTransaction, begin_thread_command("AddReply")]
) -> Response:
    body = await parse_body(request, CreateReply)
    reply = await add_reply(tx, path_id(request, "thread_id"), body)
    return json_response(201, reply_view(reply), version=reply.version)


@reply_router.patch(
    "/replies/{reply_id}",
    summary="Edit a reply; the history keeps earlier bodies",
    openapi_extra=json_body(UpdateReply),
    responses={200: {"model": ReplyView}, **documented_errors(*RESOURCE_WRITE_ERRORS, *MATCH_ERRORS)},
)
async def update(
    request: Request, tx: Annotated[CommandTransaction, _begin("EditReply")], match: Match
) -> Response:
    body = await parse_body(request, UpdateReply)
    reply = await edit_reply(tx, path_id(request, "reply_id"), body, match)
    return json_response(200, reply_view(reply), version=reply.version)


@reply_router.delete(
    "/replies/{reply_id}",
    status_code=204,
    summary="Delete a reply; replies to the reply are kept",
    responses=documented_errors(*RESOURCE_WRITE_ERRORS),
)
async def delete(request: Request, tx: Annotated[CommandTransaction, _begin("DeleteReply")]) -> Response:
    await delete_reply(tx, path_id(request, "reply_id"))
    return Response(status_code=204)


@reply_router.get(
    "/replies/{reply_id}/history",
    summary="Read the earlier bodies of a reply",
    responses={200: {"model": ReplyHistory}, **documented_errors(*RESOURCE_READ_ERRORS)},
    dependencies=[Depends(node_access(node=_reply_node, resource="reply"))],
)
async def history(request: Request, dependencies: Dependencies) -> Response:
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(DISCUSSIONS_SQL["reply"], path_id(request, "reply_id"))
    if not rows:
        raise ResourceNotFound("reply")
    reply = WorkspaceReply.model_validate_json(rows[0]["row"])
    items = [EarlierBody.model_validate(one) for one in reply.history]
    return json_response(200, ReplyHistory(items=items), version=reply.version)


@reply_router.put(
    "/replies/{reply_id}/reactions/{emoji}",
    status_code=204,
    summary="Add a reaction to a reply",
    responses=documented_errors(*RESOURCE_WRITE_ERRORS, EmojiInvalid, ReactionsFull),
)
async def react(
    request: Request, emoji: str, tx: Annotated[CommandTransaction, _begin("AddReaction")]
) -> Response:
    await add_reaction(tx, path_id(request, "reply_id"), parse_emoji(emoji))
    return Response(status_code=204)


@reply_router.delete(
    "/replies/{reply_id}/reactions/{emoji}",
    status_code=204,
    summary="Remove your reaction from a reply",
    responses=documented_errors(*RESOURCE_WRITE_ERRORS, EmojiInvalid),
)
async def unreact(
    request: Request, emoji: str, tx: Annotated[CommandTransaction, _begin("RemoveReaction")]
) -> Response:
    await remove_reaction(tx, path_id(request, "reply_id"), parse_emoji(emoji))
    return Response(status_code=204)
