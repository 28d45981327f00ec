"""Requests and answers of a workspace's imports, its tasks and its exports of whole folders."""

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
    """``POST /studies/{id}/import-pgn`` as JSON."""

    #: The whole file.
    pgn: str


class ImportPgn(_Request):
    """``POST /studies/import-pgn`` as JSON."""

    #: The whole file.
    pgn: str
    #: Of the study, or of the folder of studies; null: the file's name, else "Imported games".
    title: Title | None = None
    #: Null makes a root, which belongs to who imports.
    parent_id: UUID | None = None


class SkippedPgn(_Response):
    """A game that was not imported; it can be mended and imported by itself."""

    #: Its place in the file, from 1.
    game: int
    #: The line of what is wrong, from 1.
    line: int
    reason: str


class PgnNote(_Response):
    """How a chapter differs from its game in the file."""

    #: The game's place in the file, from 1.
    game: int
    #: The line where it occurs first, from 1.
    line: int
    #: What differs.
    note: str
    #: How often it occurs in the game.
    count: int


class ImportedStudy(_Response):
    """A study that an import has made or added to."""

    id: UUID
    title: str
    #: Chapters that came from this file.
    chapters: int


class ImportReport(_Response):
    """What became of a file."""

    #: The folder that holds the studies; null for one study.
    folder_id: UUID | None = None
    studies: list[ImportedStudy]
    #: Of all studies together.
    chapters: int
    skipped_count: int
    #: The first 100 of them.
    skipped: list[SkippedPgn]
    dropped_count: int = 0
    #: What the file says and the chapters do not: the first 100 notes.
    dropped: list[PgnNote] = []
    normalised_count: int = 0
    #: What was read as something else, without loss: the first 100 notes.
    normalised: list[PgnNote] = []


class ExportNode(_Request):
    """``POST /export``."""

    #: A workspace, a folder or a study.
    node_id: UUID


class WorkspaceTaskStarted(_Response):
    """A task that goes on after the answer; ``Location`` is where it stands."""

    task_id: UUID
    status: TaskStatus = TaskStatus.PENDING


class WorkspaceTask(_Response):
    """Where a task stands.

    ``result`` once COMPLETED: of an import its report, of an export ``studies`` and ``bytes`` of the file
    that ``GET /tasks/{task_id}/result`` answers. ``error`` once FAILED: ``error_code``, ``message`` and what
    else the same refusal has over HTTP.
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
