"""Places for large uploads: each may take 20 MiB of memory, several times over while it is read."""

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import contextmanager
from typing import Annotated, Final

from fastapi import Depends, Request
from relaybox.http import BODY_BYTES_MAX, Principal, announced_bytes, limit_body

from backend.workspace.edge import Edge
from backend.workspace.errors import TooManyUploads
from backend.workspace.pgn._body import PGN_BYTES_MAX
from backend.workspace.pgn._imports import COMMAND

__all__ = ("UPLOADS_MAX", "UPLOADS_OF_ONE_MAX", "upload_place")

UPLOADS_MAX: Final = 6
"""Large uploads that a process takes at a time."""
UPLOADS_OF_ONE_MAX: Final = 2
"""Of them, those of one person."""


class _Places:
    """Counts the large uploads of a process."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, person: str) -> Generator[None]:
        """Take a place for the length of a block.

        Raises:
            TooManyUploads: all are taken, or *person* has too many.
        """
        if self._taken.total() >= UPLOADS_MAX or self._taken[person] >= UPLOADS_OF_ONE_MAX:
            raise TooManyUploads
        self._taken[person] += 1
        try:
            yield
        finally:
            self._taken[person] -= 1
            # Else there would be an entry for each person who ever sent a file.
            self._taken += Counter()


def upload_place(edge: Edge) -> Callable[..., AsyncGenerator[None]]:
    """A dependency for routes that take a file: it lets the body be large, and takes a place for a large one.

    It runs before the body is read. A body counts as large if it has more than 1 MiB, or does not say.

    The dependency raises:
        BodyTooLarge: the client has announced more than 20 MiB.
        TooManyUploads: see :data:`UPLOADS_MAX`, :data:`UPLOADS_OF_ONE_MAX`.
    """
    places, counted = _Places(), edge.counting(COMMAND)

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
