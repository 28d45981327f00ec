"""Dependencies that the routes of studies share."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import Depends, Path
from relaybox.http import ValidationFailed
from shared_types.workspace import NodeKind, Role

from backend.workspace.access import Access
from backend.workspace.errors import ChessNotInstalled, ResourceNotFound, require_chess
from backend.workspace.http import MATCH_ERRORS, READ_ERRORS, WRITE_ERRORS, begin_command, node_access

__all__ = (
    "STUDY_CHANGE_ERRORS",
    "STUDY_READ_ERRORS",
    "STUDY_WRITE_ERRORS",
    "PathId",
    "StudyAccess",
    "begin_study_command",
    "chapter_id_from_path",
    "require_chess_installed",
)

STUDY_READ_ERRORS: Final = (*READ_ERRORS, ResourceNotFound, ValidationFailed, ChessNotInstalled)
STUDY_WRITE_ERRORS: Final = (*WRITE_ERRORS, ResourceNotFound, ChessNotInstalled)
STUDY_CHANGE_ERRORS: Final = (*STUDY_WRITE_ERRORS, *MATCH_ERRORS)

PathId = Annotated[str, Path(json_schema_extra={"format": "uuid"})]
"""An id in a URL path, declared as text: an id that is not a UUID gets 404, like an unknown id."""

StudyAccess = Annotated[Access, Depends(node_access(node="study_id", kind=NodeKind.STUDY))]
"""A dependency: the requester's access to the study in the URL path; requires the role viewer."""


def begin_study_command(command_type: str) -> Any:
    """Return a dependency that begins a command on the study in the path; requires the role editor.

    Use the result as ``Annotated[CommandTransaction, begin_study_command(...)]``.
    """
    return Depends(begin_command(command_type, Role.EDITOR, node="study_id", kind=NodeKind.STUDY))


async def require_chess_installed() -> None:
    """Require that the package ``chess`` is installed, which studies need; a FastAPI dependency.

    Raises:
        ChessNotInstalled: The package is not installed.
    """
    # Async although it waits for nothing: FastAPI runs other functions in a thread.
    require_chess()


def chapter_id_from_path(text: str) -> UUID:
    """Convert the id of a chapter in a URL path.

    Raises:
        ResourceNotFound: The text is not a UUID.
    """
    try:
        return UUID(text)
    except ValueError:
        raise ResourceNotFound("chapter") from None
