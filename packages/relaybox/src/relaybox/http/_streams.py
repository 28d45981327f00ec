"""Read the cursor and the ticket of a request for a live stream, and document its route."""

import hashlib
import secrets
from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Header, Query
from relaybox_types.api import StreamTicket

from relaybox.db import Database, load_queries
from relaybox.http._errors import TokenMissing

__all__ = (
    "STREAM_RESPONSE",
    "After",
    "LastEventId",
    "Ticket",
    "issue_ticket",
    "redeem_ticket",
    "stream_cursor",
)

_SQL: Final = load_queries(__package__ or "relaybox.http", "http.sql")
_TICKET_S: Final = 60
_VERSION_MAX: Final = 2_147_483_647

LastEventId = Annotated[str | None, Header(max_length=20)]
"""Type of the endpoint's parameter ``last_event_id``: the cursor that a browser sends when it reconnects."""
After = Annotated[
    int, Query(ge=0, le=_VERSION_MAX, description="Version after which events are sent; see Last-Event-ID")
]
"""Type of the endpoint's parameter ``after``: the cursor of a client that sends no ``Last-Event-ID``."""
Ticket = Annotated[str | None, Query(max_length=100, description="A stream ticket, instead of a token")]
"""Type of the endpoint's parameter ``ticket``, see :func:`issue_ticket`."""

#: Routes use this instead of ``response_class=EventStreamResponse``: with a response class, FastAPI would
#: document the media type of the stream for error responses too.
STREAM_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The stream"}
}
"""Argument ``responses`` of a route that returns an ``EventStreamResponse``; the route adds its errors."""


async def issue_ticket(database: Database, aggregate_id: UUID, owner: str) -> StreamTicket:
    """Create a ticket with which *owner*, a principal's subject, can open one stream within 60 seconds.

    Browsers need a ticket, because their ``EventSource`` cannot send a token. The ticket is valid for the
    stream of one aggregate. The database stores only a hash of the ticket.

    Raises:
        DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot store the ticket.
    """
    ticket = secrets.token_urlsafe(32)
    async with database.connection() as connection:
        await connection.fetch(_SQL["issue_ticket"], _hash(ticket), aggregate_id, owner, float(_TICKET_S))
    return StreamTicket(ticket=ticket, expires_in_s=_TICKET_S)


async def redeem_ticket(database: Database, ticket: str, aggregate_id: UUID) -> str:
    """Return the owner of *ticket*, and delete the ticket, because a ticket can be used once.

    Raises:
        TokenMissing: The ticket is for another aggregate, unknown, used, or expired.
        DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot read the ticket.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_SQL["use_ticket"], _hash(ticket), aggregate_id)
    if not rows:
        raise TokenMissing(
            "The stream ticket is unknown, used, expired or for another stream; request a new ticket"
        )
    return rows[0]["owner"]


def stream_cursor(last_event_id: str | None, after: int) -> int:
    """Return the version after which a stream begins: *last_event_id* if given, otherwise *after*.

    For a malformed *last_event_id* the result is higher than any version, so that ``LiveStreams.follow``
    sends ``reset``.
    """
    if not last_event_id:
        return after
    return int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else _VERSION_MAX + 1


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()
