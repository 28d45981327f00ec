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
from backend.workspace.discussions._discussions import DISCUSSIONS
from backend.workspace.discussions._emoji import emoji_of
from backend.workspace.discussions._replies import (
    add_reaction,
    add_reply,
    delete_reply,
    edit_reply,
    remove_reaction,
)
from backend.workspace.discussions._routes import reply_view
from backend.workspace.edge import (
    MATCH_ERRORS,
    THING_READ_ERRORS,
    THING_WRITE_ERRORS,
    Edge,
    IfMatchHeader,
    body_of,
    documented,
    id_in,
    json_answer,
)
from backend.workspace.errors import (
    DiscussionFull,
    EmojiInvalid,
    ReactionsFull,
    ReplyTooDeep,
    ThingNotFound,
)

__all__ = ("add_reply_routes",)


def add_reply_routes(router: APIRouter, edge: Edge) -> None:
    """The routes under ``/replies``, and the one that adds a reply."""
    _add_create(router, edge)
    _add_update(router, edge)
    _add_delete(router, edge)
    _add_history(router, edge)
    _add_reactions(router, edge)


def _writing(edge: Edge, command_type: str) -> Any:
    reply_node = edge.node_of(DISCUSSIONS["reply_node"], "reply_id")
    return Depends(edge.writing(command_type, Role.COMMENTER, node=reply_node, thing="reply"))


def _add_create(router: APIRouter, edge: Edge) -> None:
    thread_node = edge.node_of(DISCUSSIONS["thread_node"], "thread_id")
    begun = Depends(edge.writing("AddReply", Role.COMMENTER, node=thread_node, thing="thread"))

    @router.post(
        "/discussions/{thread_id}/replies",
        status_code=201,
        summary="Reply to a discussion, or to a reply in it",
        openapi_extra=json_body(CreateReply),
        responses={
            201: {"model": ReplyView},
            **documented(*THING_WRITE_ERRORS, ReplyTooDeep, DiscussionFull),
        },
    )
    async def create(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        body = await body_of(request, CreateReply)
        reply = await add_reply(edge.work(request, unit), id_in(request, "thread_id"), body)
        return json_answer(201, reply_view(reply), version=reply.version)

    _ = create


def _add_update(router: APIRouter, edge: Edge) -> None:
    begun = _writing(edge, "EditReply")

    @router.patch(
        "/replies/{reply_id}",
        summary="Say it better; what was said before stays in the history",
        openapi_extra=json_body(UpdateReply),
        responses={200: {"model": ReplyView}, **documented(*THING_WRITE_ERRORS, *MATCH_ERRORS)},
    )
    async def update(
        request: Request,
        unit: Annotated[UnitOfWork[Principal], begun],
        if_match: IfMatchHeader,
    ) -> Response:
        match, body = IfMatch.parse(if_match), await body_of(request, UpdateReply)
        reply = await edit_reply(edge.work(request, unit), id_in(request, "reply_id"), body, match)
        return json_answer(200, reply_view(reply), version=reply.version)

    _ = update


def _add_delete(router: APIRouter, edge: Edge) -> None:
    begun = _writing(edge, "DeleteReply")

    @router.delete(
        "/replies/{reply_id}",
        status_code=204,
        summary="Delete a reply; answers to it stay",
        responses=documented(*THING_WRITE_ERRORS),
    )
    async def delete(request: Request, unit: Annotated[UnitOfWork[Principal], begun]) -> Response:
        await delete_reply(edge.work(request, unit), id_in(request, "reply_id"))
        return Response(status_code=204)

    _ = delete


def _add_history(router: APIRouter, edge: Edge) -> None:
    reply_node = edge.node_of(DISCUSSIONS["reply_node"], "reply_id")

    @router.get(
        "/replies/{reply_id}/history",
        summary="What a reply said before",
        responses={200: {"model": ReplyHistory}, **documented(*THING_READ_ERRORS)},
        dependencies=[Depends(edge.reading(node=reply_node, thing="reply"))],
    )
    async def history(request: Request) -> Response:
        async with edge.backbone.database.connection() as connection:
            rows = await connection.fetch(DISCUSSIONS["reply"], id_in(request, "reply_id"))
        if not rows:
            raise ThingNotFound("reply")
        reply = WorkspaceReply.model_validate_json(rows[0]["row"])
        items = [EarlierBody.model_validate(one) for one in reply.history]
        return json_answer(200, ReplyHistory(items=items), version=reply.version)

    _ = history


def _add_reactions(router: APIRouter, edge: Edge) -> None:
    adding, removing = _writing(edge, "AddReaction"), _writing(edge, "RemoveReaction")

    @router.put(
        "/replies/{reply_id}/reactions/{emoji}",
        status_code=204,
        summary="React to a reply",
        responses=documented(*THING_WRITE_ERRORS, EmojiInvalid, ReactionsFull),
    )
    async def react(request: Request, emoji: str, unit: Annotated[UnitOfWork[Principal], adding]) -> Response:
        await add_reaction(edge.work(request, unit), id_in(request, "reply_id"), emoji_of(emoji))
        return Response(status_code=204)

    @router.delete(
        "/replies/{reply_id}/reactions/{emoji}",
        status_code=204,
        summary="Take a reaction back",
        responses=documented(*THING_WRITE_ERRORS, EmojiInvalid),
    )
    async def unreact(
        request: Request, emoji: str, unit: Annotated[UnitOfWork[Principal], removing]
    ) -> Response:
        await remove_reaction(edge.work(request, unit), id_in(request, "reply_id"), emoji_of(emoji))
        return Response(status_code=204)

    _ = react, unreact
