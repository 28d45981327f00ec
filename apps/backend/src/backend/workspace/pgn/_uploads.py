"""Places for large uploads: each may take 20 MiB of memory, several times over while it is read."""

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from relaybox.http import BODY_BYTES_MAX, Principal, announced_bytes, limit_body

from backend.workspace.edge import Edge, Places
from backend.workspace.errors import TooManyUploads
from backend.workspace.pgn._body import PGN_BYTES_MAX
from backend.workspace.pgn._imports import COMMAND

__all__ = ("UPLOADS_MAX", "UPLOADS_OF_ONE_MAX", "upload_place")

UPLOADS_MAX: Final = 6
"""Large uploads that a process takes at a time."""
UPLOADS_OF_ONE_MAX: Final = 2
"""Of them, those of one person; the second one only while fewer than half of all are taken."""


def upload_place(edge: Edge) -> Callable[..., AsyncGenerator[None]]:
    """A dependency for routes that take a file: it lets the body be large, and takes a place for a large one.

    It runs before the body is read. A body counts as large if it has more than 1 MiB, or does not say.

    The dependency raises:
        BodyTooLarge: the client has announced more than 20 MiB.
        TooManyUploads: see :data:`UPLOADS_MAX`, :data:`UPLOADS_OF_ONE_MAX`.
    """
    places = Places(places_max=UPLOADS_MAX, of_one_max=UPLOADS_OF_ONE_MAX, refusal=TooManyUploads)
    counted = edge.counting(COMMAND)

    async def place(
        request: Request,
        principal: Annotated[Principal, Depends(edge.authenticated)],
        _counted: Annotated[None, Depends(counted)],
    ) -> AsyncGenerator[None]:
        limit_body(request, PGN_BYTES_MAX)
        announced = announced_bytes(request)
        if announced is not None and announced <= BODY_BYTES_MAX:
            yield
            return
        with places.taken(principal.subject):
            yield

    return place
