"""What has happened to a node, and what happens, over HTTP."""

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from relaybox.db import load_queries
from relaybox.events import RecordedEvent, fetch_recent
from relaybox.http import (
    STREAM_RESPONSE,
    After,
    EventFilter,
    EventStreamResponse,
    LastEventId,
    Ticket,
    TokenMissing,
    ValidationFailed,
    VisibleEvents,
    issue_ticket,
    redeem_ticket,
    stream_cursor,
)
from relaybox_types.api import StreamTicket
from shared_types.workspace import Role
from shared_types.workspace_activity_api import ActivityPage
from starlette.responses import Response

from backend.workspace.access import Access
from backend.workspace.activity._activity import activity_entry, redact_for_reader
from backend.workspace.errors import NodeNotFound
from backend.workspace.http import (
    READ_ERRORS,
    Requester,
    RouteDependencies,
    cursor_int,
    decode_cursor,
    documented_errors,
    encode_cursor,
    path_id,
)
from backend.workspace.projection import AGGREGATE_TYPE

__all__ = ("add_activity_routes",)

_SQL: Final = load_queries(__package__ or "backend.workspace.activity", "activity.sql")
Limit = Annotated[int, Query(ge=1, le=200)]
Cursor = Annotated[str | None, Query(max_length=200)]


def add_activity_routes(router: APIRouter, deps: RouteDependencies) -> None:
    """Activity and live stream of a node."""
    _add_activity(router, deps)
    _add_ticket(router, deps)
    _add_stream(router, deps)


def _add_activity(router: APIRouter, deps: RouteDependencies) -> None:
    @router.get(
        "/nodes/{node_id}/activity",
        summary="What has happened to a node, newest first",
        description="To the node itself, its chapters, discussions and grants; not to what is below it.",
        responses=documented_errors(*READ_ERRORS, ValidationFailed),
    )
    async def activity(
        access: Annotated[Access, Depends(deps.reading())], limit: Limit = 50, cursor: Cursor = None
    ) -> ActivityPage:
        [before] = decode_cursor(cursor, cursor_int)
        async with deps.backbone.database.connection() as connection:
            events = await fetch_recent(
                connection, AGGREGATE_TYPE, str(access.node.id), before_version=before, limit=limit + 1
            )
        items = [activity_entry(event, access) for event in events[:limit]]
        return ActivityPage(
            items=items, next_cursor=encode_cursor(items[-1].version) if len(events) > limit else None
        )

    _ = activity


def _add_ticket(router: APIRouter, deps: RouteDependencies) -> None:
    @router.post(
        "/nodes/{node_id}/stream-ticket",
        status_code=201,
        summary="A ticket for a node's live stream",
        description="For browsers, whose EventSource cannot send a token: single use, 60 seconds.",
        responses=documented_errors(*READ_ERRORS),
    )
    async def stream_ticket(
        request: Request, requester: Annotated[Requester, Depends(deps.requester)]
    ) -> StreamTicket:
        node_id = await deps.known(request, requester)
        if requester.subject is None:
            raise TokenMissing
        # A ticket is a person's: it does not stand for a link that they have opened.
        access = await deps.access(node_id, Requester(subject=requester.subject))
        access.require(Role.VIEWER)
        return await issue_ticket(deps.backbone.database, node_id, requester.subject)

    _ = stream_ticket


def _add_stream(router: APIRouter, deps: RouteDependencies) -> None:
    async def follower(
        request: Request, requester: Annotated[Requester, Depends(deps.requester)], ticket: Ticket = None
    ) -> Requester:
        if ticket is None:
            return requester
        try:
            node_id = path_id(request)
        except NodeNotFound:
            raise TokenMissing from None
        return Requester(subject=await redeem_ticket(deps.backbone.database, ticket, node_id))

    @router.get(
        "/nodes/{node_id}/events",
        summary="What happens to a node, live",
        description="Server-Sent Events; `id` is the version of the node's stream, resume with "
        "`Last-Event-ID`. Ends when you may not read the node any more.",
        response_class=Response,
        responses={**STREAM_RESPONSE, **documented_errors(*READ_ERRORS, ValidationFailed)},
    )
    async def events(
        request: Request,
        requester: Annotated[Requester, Depends(follower)],
        last_event_id: LastEventId = None,
        after: After = 0,
    ) -> Response:
        access = await deps.access(await deps.known(request, requester), requester)
        access.require(Role.VIEWER)
        stream = deps.backbone.live.follow(
            AGGREGATE_TYPE,
            access.node.id,
            after_version=stream_cursor(last_event_id, after),
            current_version=await _stream_version(deps, access.node.id),
            event_filter=_admission(deps, access.node.id, requester),
            # A grant, a visibility or the bin further up decides about this node too.
            woken_by=[one.id for one in access.chain[1:]],
        )
        return EventStreamResponse(stream)

    _ = events


async def _stream_version(deps: RouteDependencies, node_id: UUID) -> int:
    async with deps.backbone.database.connection() as connection:
        rows = await connection.fetch(_SQL["stream_version"], node_id)
    if not rows:
        raise NodeNotFound
    return rows[0]["stream_version"]


def _admission(deps: RouteDependencies, node_id: UUID, requester: Requester) -> EventFilter:
    """Asks anew, before each page, what *viewer* may read."""

    async def admit(events: Sequence[RecordedEvent]) -> VisibleEvents:
        try:
            access = await deps.access(node_id, requester)
        except (NodeNotFound, TokenMissing):
            return VisibleEvents(ends=True)
        if access.role is None:
            return VisibleEvents(ends=True)
        # Who could read it until then is told that it went into the bin, and then no more.
        return VisibleEvents(
            events=[redact_for_reader(event, access) for event in events], ends=access.trashed is not None
        )

    return admit
