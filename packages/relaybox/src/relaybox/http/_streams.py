"""Parts of a live stream's route: its cursor, its tickets, its documentation."""

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
"""The header ``Last-Event-ID`` of a client that reconnects; name the parameter ``last_event_id``."""
After = Annotated[int, Query(ge=0, le=_VERSION_MAX, description="Where to begin without a header")]
"""The cursor of a client that cannot send the header."""
Ticket = Annotated[str | None, Query(max_length=100, description="Instead of a token")]
"""A ticket of :func:`issue_ticket`."""

#: Not ``response_class=EventStreamResponse``: its media type would be documented for the errors too.
STREAM_RESPONSE: Final[dict[int | str, dict[str, Any]]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "The stream"}
}
"""``responses=`` of a route that returns an ``EventStreamResponse``, beside those of its errors."""


async def issue_ticket(database: Database, aggregate_id: UUID, owner: str) -> StreamTicket:
    """Return a ticket with which *owner* can open one stream of an aggregate within 60 seconds.

    For browsers, whose ``EventSource`` cannot send a token. Only a hash of the ticket is stored.

    Raises:
        DatabaseUnavailable, DatabaseBusy: PostgreSQL cannot store it.
    """
    ticket = secrets.token_urlsafe(32)
    async with database.connection() as connection:
        await connection.fetch(_SQL["issue_ticket"], _hash(ticket), aggregate_id, owner, float(_TICKET_S))
    return StreamTicket(ticket=ticket, expires_in_s=_TICKET_S)


async def redeem_ticket(database: Database, ticket: str, aggregate_id: UUID) -> str:
    """Return the owner of *ticket* for the stream of this aggregate, and delete the ticket.

    Raises:
        TokenMissing: The ticket is for another aggregate, used, or expired.
    """
    async with database.connection() as connection:
        rows = await connection.fetch(_SQL["use_ticket"], _hash(ticket), aggregate_id)
    if not rows:
        raise TokenMissing
    return rows[0]["owner"]


def stream_cursor(last_event_id: str | None, after: int) -> int:
    """Return the version after which a stream begins; the header precedes the query parameter.

    A malformed cursor becomes a version beyond all streams, for which ``LiveStreams.follow`` sends ``reset``.
    """
    if not last_event_id:
        return after
    return int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else _VERSION_MAX + 1


def _hash(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode()).digest()
