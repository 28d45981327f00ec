"""Define request and response bodies of PGN imports, of exports of whole folders, and of their tasks."""

from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from relaybox_types.enums import TaskStatus

from shared_types.workspace_api import Title

__all__ = (
    "ExportNode",
    "ImportIntoStudy",
    "ImportPgn",
    "ImportReport",
    "ImportedStudy",
    "PgnNote",
    "SkippedPgn",
    "WorkspaceTask",
    "WorkspaceTaskStarted",
)


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class _Response(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class ImportIntoStudy(_Request):
    """JSON body of ``POST /studies/{id}/import-pgn``."""

    #: Content of the PGN file.
    pgn: str


class ImportPgn(_Request):
    """JSON body of ``POST /studies/import-pgn``."""

    #: Content of the PGN file.
    pgn: str
    #: Title of the study or of the folder of studies; null: the name of the file, or "Imported games".
    title: Title | None = None
    #: Id of the parent; null creates the root of a new tree, owned by the sender.
    parent_id: UUID | None = None


class SkippedPgn(_Response):
    """A game that was not imported; the user can correct and import it separately."""

    #: The number of the game in the file, from 1.
    game: int
    #: The line of the file with the error, from 1.
    line: int
    reason: str


class PgnNote(_Response):
    """A difference of a chapter from its game in the file."""

    #: The number of the game in the file, from 1.
    game: int
    #: The line of the file with the first occurrence, from 1.
    line: int
    #: Description of the difference.
    note: str
    #: The number of occurrences in the game.
    count: int


class ImportedStudy(_Response):
    """A study that an import has created or extended."""

    id: UUID
    title: str
    #: Number of chapters that this import created.
    chapters: int


class ImportReport(_Response):
    """The result of an import."""

    #: Id of the folder with the created studies; null if there is one study.
    folder_id: UUID | None = None
    studies: list[ImportedStudy]
    #: The number of chapters that the import created, in all studies.
    chapters: int
    skipped_count: int
    #: The first 100 skipped games.
    skipped: list[SkippedPgn]
    dropped_count: int = 0
    #: The first 100 notes about content of the file that the import left out of the chapters.
    dropped: list[PgnNote] = []
    normalised_count: int = 0
    #: The first 100 notes about content that was converted without loss.
    normalised: list[PgnNote] = []


class ExportNode(_Request):
    """Body of ``POST /export``."""

    #: Id of a workspace, a folder or a study.
    node_id: UUID


class WorkspaceTaskStarted(_Response):
    """A task that was started; the header ``Location`` is the address of its state."""

    task_id: UUID
    status: TaskStatus = TaskStatus.PENDING


class WorkspaceTask(_Response):
    """The state of a task.

    ``result`` is null until the task is COMPLETED. The result of an import is its report. The result of an
    export has the number of ``studies`` and of ``bytes`` of the file, which ``GET /tasks/{task_id}/result``
    returns. ``error`` is null unless the task is FAILED; it has the fields of an error response, such as
    ``error_code`` and ``message``.
    """

    task_id: UUID
    task_type: str
    status: TaskStatus
    #: Percent.
    progress: float = Field(ge=0, le=100)
    created_at: datetime
    updated_at: datetime
    result: dict[str, JsonValue] | None = None
    error: dict[str, JsonValue] | None = None
