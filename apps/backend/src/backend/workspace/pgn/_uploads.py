"""Places for large uploads: each may take 20 MiB of memory, several times over while it is read."""

from collections.abc import AsyncGenerator, Callable
from typing import Annotated, Final

from fastapi import Depends, Request
from relaybox.http import BODY_BYTES_MAX, Principal, content_length, limit_body

from backend.workspace.errors import TooManyUploads
from backend.workspace.http import ConcurrencyLimit, RouteDependencies
from backend.workspace.pgn._body import PGN_BYTES_MAX
from backend.workspace.pgn._imports import COMMAND

__all__ = ("UPLOADS_MAX", "UPLOADS_PER_USER_MAX", "upload_slot")

UPLOADS_MAX: Final = 6
"""Large uploads that a process takes at a time."""
UPLOADS_PER_USER_MAX: Final = 2
"""Of them, those of one person; the second one only while fewer than half of all are taken."""


def upload_slot(deps: RouteDependencies) -> Callable[..., AsyncGenerator[None]]:
    """A dependency for routes that take a file: it lets the body be large, and takes a place for a large one.

    It runs before the body is read. A body counts as large if it has more than 1 MiB, or does not say.

    The dependency raises:
        BodyTooLarge: the client has announced more than 20 MiB.
        TooManyUploads: see :data:`UPLOADS_MAX`, :data:`UPLOADS_PER_USER_MAX`.
    """
    limit = ConcurrencyLimit(total_max=UPLOADS_MAX, per_holder_max=UPLOADS_PER_USER_MAX, error=TooManyUploads)
    counted = deps.counting(COMMAND)

    async def place(
        request: Request,
        principal: Annotated[Principal, Depends(deps.authenticated)],
        _counted: Annotated[None, Depends(counted)],
    ) -> AsyncGenerator[None]:
        limit_body(request, PGN_BYTES_MAX)
        announced = content_length(request)
        if announced is not None and announced <= BODY_BYTES_MAX:
            yield
            return
        with limit.slot(principal.subject):
            yield

    return place
