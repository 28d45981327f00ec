"""What has happened to a node, and what happens, over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.db import load_queries
from relaybox.events import RecordedEvent, fetch_recent
from relaybox.http import (
    STREAM_ANSWER,
    Admit,
    Admitted,
    After,
    EventStreamResponse,
    LastEventId,
    Ticket,
    TokenMissing,
    ValidationFailed,
    issue_ticket,
    redeem_ticket,
    stream_cursor,
)
from relaybox_types.api import StreamTicket
from shared_types.workspace import Role
from shared_types.workspace_activity_api import ActivityPage
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.activity._activity import activity_of, for_reader
from backend.workspace.edge import READ_ERRORS, Edge, Viewer, cursor_of, documented, id_in, place_of, whole
from backend.workspace.errors import NodeNotFound
from backend.workspace.history import AGGREGATE_TYPE

__all__ = ("add_activity_routes",)

_SQL: Final = load_queries(__package__ or "backend.workspace.activity", "activity.sql")
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


def add_activity_routes(router: APIRouter, edge: Edge) -> None:
    """Activity and live stream of a node."""
    _add_activity(router, edge)
    _add_ticket(router, edge)
    _add_stream(router, edge)


def _add_activity(router: APIRouter, edge: Edge) -> None:
    @router.get(
        "/nodes/{node_id}/activity",
        summary="What has happened to a node, newest first",
        description="To the node itself, its chapters, discussions and grants; not to what is below it.",
        responses=documented(*READ_ERRORS, ValidationFailed),
    )
    async def activity(
        access: Annotated[Access, Depends(edge.reading())], limit: Limit = 50, cursor: Cursor = None
    ) -> ActivityPage:
        [before] = place_of(cursor, whole)
        async with edge.backbone.database.connection() as connection:
            events = await fetch_recent(
                connection, AGGREGATE_TYPE, str(access.node.id), before_version=before, limit=limit + 1
            )
        items = [activity_of(event, access) for event in events[:limit]]
        return ActivityPage(
            items=items, next_cursor=cursor_of(items[-1].version) if len(events) > limit else None
        )

    _ = activity


def _add_ticket(router: APIRouter, edge: Edge) -> None:
    @router.post(
        "/nodes/{node_id}/stream-ticket",
        status_code=201,
        summary="A ticket for a node's live stream",
        description="For browsers, whose EventSource cannot send a token: single use, 60 seconds.",
        responses=documented(*READ_ERRORS),
    )
    async def stream_ticket(
        request: Request, viewer: Annotated[Viewer, Depends(edge.viewer)]
    ) -> StreamTicket:
        node_id = await edge.known(request, viewer)
        if viewer.subject is None:
            raise TokenMissing
        # A ticket is a person's: it does not stand for a link that they have opened.
        access = await edge.access(node_id, Viewer(subject=viewer.subject))
        access.require(Role.VIEWER)
        return await issue_ticket(edge.backbone.database, node_id, viewer.subject)

    _ = stream_ticket


def _add_stream(router: APIRouter, edge: Edge) -> None:
    async def follower(
        request: Request, viewer: Annotated[Viewer, Depends(edge.viewer)], ticket: Ticket = None
    ) -> Viewer:
        if ticket is None:
            return viewer
        try:
            node_id = id_in(request)
        except NodeNotFound:
            raise TokenMissing from None
        return Viewer(subject=await redeem_ticket(edge.backbone.database, ticket, node_id))

    @router.get(
        "/nodes/{node_id}/events",
        summary="What happens to a node, live",
        description="Server-Sent Events; `id` is the version of the node's stream, resume with "
        "`Last-Event-ID`. Ends when you may not read the node any more.",
        response_class=Response,
        responses={**STREAM_ANSWER, **documented(*READ_ERRORS, ValidationFailed)},
    )
    async def events(
        request: Request,
        viewer: Annotated[Viewer, Depends(follower)],
        last_event_id: LastEventId = None,
        after: After = 0,
    ) -> Response:
        access = await edge.access(await edge.known(request, viewer), viewer)
        access.require(Role.VIEWER)
        stream = edge.backbone.live.follow(
            AGGREGATE_TYPE,
            access.node.id,
            after_version=stream_cursor(last_event_id, after),
            current_version=await _stream_version(edge, access.node.id),
            admit=_admission(edge, access.node.id, viewer),
            # A grant, a visibility or the bin further up decides about this node too.
            woken_by=[one.id for one in access.chain[1:]],
        )
        return EventStreamResponse(stream)

    _ = events


async def _stream_version(edge: Edge, node_id: UUID) -> int:
    async with edge.backbone.database.connection() as connection:
        rows = await connection.fetch(_SQL["stream_version"], node_id)
    if not rows:
        raise NodeNotFound
    return rows[0]["stream_version"]


def _admission(edge: Edge, node_id: UUID, viewer: Viewer) -> Admit:
    """Asks anew, before each page, what *viewer* may read."""

    async def admit(events: Sequence[RecordedEvent]) -> Admitted:
        try:
            access = await edge.access(node_id, viewer)
        except (NodeNotFound, TokenMissing):
            return Admitted(ends=True)
        if access.role is None:
            return Admitted(ends=True)
        # Who could read it until then is told that it went into the bin, and then no more.
        return Admitted(
            events=[for_reader(event, access) for event in events], ends=access.trashed is not None
        )

    return admit
