"""Routes that show a node's events: the activity list and the live stream."""

from collections.abc import Sequence
from typing import Annotated, Final
from uuid import UUID

from fastapi import APIRouter, Depends, Request
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
    CurrentRequester,
    Cursor,
    Dependencies,
    PageLimit,
    Requester,
    RouteDependencies,
    cursor_int,
    decode_cursor,
    dependencies_of,
    documented_errors,
    encode_cursor,
    known_node_id,
    node_access,
    path_id,
)
from backend.workspace.projection import AGGREGATE_TYPE, EVENT_TYPES

__all__ = ("activity_router",)

_SQL: Final = load_queries(__package__ or "backend.workspace.activity", "activity.sql")
activity_router = APIRouter()


@activity_router.get(
    "/nodes/{node_id}/activity",
    summary="List the events of a node, newest first",
    description="Events of the node itself, its chapters, discussions and grants; not of the nodes below it.",
    responses=documented_errors(*READ_ERRORS, ValidationFailed),
)
async def activity(
    dependencies: Dependencies,
    access: Annotated[Access, Depends(node_access())],
    limit: PageLimit = 50,
    cursor: Cursor = None,
) -> ActivityPage:
    [before] = decode_cursor(cursor, cursor_int)
    async with dependencies.database.connection() as connection:
        events = await fetch_recent(
            connection,
            AGGREGATE_TYPE,
            str(access.node.id),
            before_version=before,
            limit=limit + 1,
            event_types=EVENT_TYPES,
        )
    items = [activity_entry(event, access) for event in events[:limit]]
    next_cursor = encode_cursor(items[-1].version) if len(events) > limit else None
    return ActivityPage(items=items, next_cursor=next_cursor)


@activity_router.post(
    "/nodes/{node_id}/stream-ticket",
    status_code=201,
    summary="Create a ticket for a node's live stream",
    description="For browsers, whose EventSource cannot send a token. The ticket is valid once, for 60 s.",
    responses=documented_errors(*READ_ERRORS),
)
async def stream_ticket(
    request: Request, dependencies: Dependencies, requester: CurrentRequester
) -> StreamTicket:
    node_id = await known_node_id(request, requester)
    if requester.subject is None:
        raise TokenMissing
    # A ticket contains only the user id, so a role by a share link is not considered.
    access = await dependencies.access(node_id, Requester(subject=requester.subject))
    access.require(Role.VIEWER)
    return await issue_ticket(dependencies.database, node_id, requester.subject)


async def _stream_requester(
    request: Request, requester: CurrentRequester, ticket: Ticket = None
) -> Requester:
    """Return the user for whom *ticket* was created; without a ticket, the requester."""
    if ticket is None:
        return requester
    try:
        node_id = path_id(request)
    except NodeNotFound:
        raise TokenMissing from None
    return Requester(subject=await redeem_ticket(dependencies_of(request).database, ticket, node_id))


@activity_router.get(
    "/nodes/{node_id}/events",
    summary="Stream the events of a node",
    description="Server-Sent Events; `id` is the version of the node's stream; resume with "
    "`Last-Event-ID`. The stream ends when you may no longer read the node.",
    response_class=Response,
    responses={**STREAM_RESPONSE, **documented_errors(*READ_ERRORS, ValidationFailed)},
)
async def events(
    request: Request,
    dependencies: Dependencies,
    requester: Annotated[Requester, Depends(_stream_requester)],
    last_event_id: LastEventId = None,
    after: After = 0,
) -> Response:
    access = await dependencies.access(await known_node_id(request, requester), requester)
    access.require(Role.VIEWER)
    stream = dependencies.backbone.live.follow(
        AGGREGATE_TYPE,
        access.node.id,
        after_version=stream_cursor(last_event_id, after),
        current_version=await _stream_version(dependencies, access.node.id),
        event_filter=_event_filter(dependencies, access.node.id, requester),
        event_types=EVENT_TYPES,
        # Events of ancestors (grants, visibility, trash) change the access to this node too.
        woken_by=[one.id for one in access.chain[1:]],
    )
    return EventStreamResponse(stream)


async def _stream_version(dependencies: RouteDependencies, node_id: UUID) -> int:
    async with dependencies.database.connection() as connection:
        rows = await connection.fetch(_SQL["stream_version"], node_id)
    if not rows:
        raise NodeNotFound
    return rows[0]["stream_version"]


def _event_filter(dependencies: RouteDependencies, node_id: UUID, requester: Requester) -> EventFilter:
    """Return a filter that reads the access of *requester* again before each page of events."""

    async def visible(events: Sequence[RecordedEvent]) -> VisibleEvents:
        try:
            access = await dependencies.access(node_id, requester)
        except (NodeNotFound, TokenMissing):
            return VisibleEvents(ends=True)
        if access.role is None:
            return VisibleEvents(ends=True)
        # The event that trashes the node is the last event that a reader gets.
        return VisibleEvents(
            events=[redact_for_reader(event, access) for event in events], ends=access.trashed is not None
        )

    return visible
