"""Limit how many large PGN files a process receives at the same time, and provide the parser of files."""

from collections.abc import AsyncGenerator
from typing import Annotated, Final

from fastapi import Depends, Request
from relaybox.http import BODY_BYTES_MAX, Principal, content_length, limit_body

from backend.workspace.errors import TooManyUploads
from backend.workspace.http import ConcurrencyLimit, authenticated, count_command_errors
from backend.workspace.pgn._body import PGN_BYTES_MAX
from backend.workspace.pgn._file_reader import PgnFileReader
from backend.workspace.pgn._imports import COMMAND

__all__ = ("UPLOADS_MAX", "UPLOADS_PER_USER_MAX", "PgnUploads", "reserve_upload_slot")

UPLOADS_MAX: Final = 6
"""Maximum number of concurrent large uploads in a process; each needs several times 20 MiB of memory."""
UPLOADS_PER_USER_MAX: Final = 2
"""Maximum number of concurrent large uploads of one user; see ConcurrencyLimit for the second upload."""


class PgnUploads:
    """The parser of files and the limit of uploads that the import routes of one application share."""

    def __init__(self, event_bytes_max: int) -> None:
        """*event_bytes_max*: maximum size in bytes of an event in the outbox, and so of a chapter."""
        self.reader = PgnFileReader(event_bytes_max)
        self.limit = ConcurrencyLimit(
            total_max=UPLOADS_MAX, per_holder_max=UPLOADS_PER_USER_MAX, error=TooManyUploads
        )

    async def provide(self, request: Request) -> None:
        """Store this object in the state of *request*; the router of imports depends on this method first."""
        request.state.pgn_uploads = self

    @staticmethod
    def of(request: Request) -> "PgnUploads":
        """Return the object that :meth:`provide` stored in the state of *request*."""
        uploads: PgnUploads = request.state.pgn_uploads
        return uploads


async def reserve_upload_slot(
    request: Request,
    principal: Annotated[Principal, Depends(authenticated)],
    _counted: Annotated[None, Depends(count_command_errors(COMMAND))],
) -> AsyncGenerator[None]:
    """Allow a body of 20 MiB, and reserve a slot for a body of more than 1 MiB or of unknown size.

    A FastAPI dependency that runs before the body is read. The slot is free again when the request has ended.

    Raises:
        BodyTooLarge: Content-Length is more than 20 MiB.
        TooManyUploads: See :data:`UPLOADS_MAX` and :data:`UPLOADS_PER_USER_MAX`.
    """
    limit_body(request, PGN_BYTES_MAX)
    announced = content_length(request)
    if announced is not None and announced <= BODY_BYTES_MAX:
        yield
        return
    with PgnUploads.of(request).limit.slot(principal.subject):
        yield
