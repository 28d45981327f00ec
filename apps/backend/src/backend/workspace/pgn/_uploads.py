"""Reading PGN files of requests: the number of large bodies, and the threads that parse them."""

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
"""Large uploads that a process receives at the same time; each uses several times 20 MiB of memory."""
UPLOADS_PER_USER_MAX: Final = 2
"""Large uploads of one user at the same time; a second one only while under half of all slots are used."""


class PgnUploads:
    """The reader and the limit of uploads that the import routes of one application share."""

    def __init__(self, event_bytes_max: int) -> None:
        """*event_bytes_max* is the largest event that the outbox accepts; no chapter may be larger."""
        self.reader = PgnFileReader(event_bytes_max)
        self.limit = ConcurrencyLimit(
            total_max=UPLOADS_MAX, per_holder_max=UPLOADS_PER_USER_MAX, error=TooManyUploads
        )

    async def provide(self, request: Request) -> None:
        """Store this object in the state of *request*; the first dependency of the imports' router."""
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
    """Allow a body of 20 MiB, and reserve a slot for one of more than 1 MiB or of unknown size; a dependency.

    It runs before the body is read.

    Raises:
        BodyTooLarge: The client has announced more than 20 MiB.
        TooManyUploads: See :data:`UPLOADS_MAX` and :data:`UPLOADS_PER_USER_MAX`.
    """
    limit_body(request, PGN_BYTES_MAX)
    announced = content_length(request)
    if announced is not None and announced <= BODY_BYTES_MAX:
        yield
        return
    with PgnUploads.of(request).limit.slot(principal.subject):
        yield
