"""What the routes of studies have in common."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Path
from relaybox.http import ValidationFailed

from backend.workspace.errors import ChessNotInstalled, ResourceNotFound, require_chess
from backend.workspace.http import MATCH_ERRORS, READ_ERRORS, WRITE_ERRORS

__all__ = (
    "STUDY_CHANGE_ERRORS",
    "STUDY_READ_ERRORS",
    "STUDY_WRITE_ERRORS",
    "Id",
    "chess_installed",
    "id_of_chapter",
)

STUDY_READ_ERRORS: Final = (*READ_ERRORS, ResourceNotFound, ValidationFailed, ChessNotInstalled)
STUDY_WRITE_ERRORS: Final = (*WRITE_ERRORS, ResourceNotFound, ChessNotInstalled)
STUDY_CHANGE_ERRORS: Final = (*STUDY_WRITE_ERRORS, *MATCH_ERRORS)

Id = Annotated[str, Path(json_schema_extra={"format": "uuid"})]
"""An id in a path; one that is no UUID is the id of nothing, and 404 like one that is unknown."""


async def chess_installed() -> None:
    """A dependency: without the package ``chess`` there are no studies.

    Raises:
        ChessNotInstalled: it is not there.
    """
    # A coroutine, because FastAPI sends functions to a thread.
    require_chess()


def id_of_chapter(text: str) -> UUID:
    """The id of a chapter in a path.

    Raises:
        ResourceNotFound: it is no UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise ResourceNotFound("chapter") from None
