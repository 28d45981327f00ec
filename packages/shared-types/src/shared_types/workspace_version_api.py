"""Define request and response bodies of the versions of a study."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared_types.workspace_api import OneLine

__all__ = (
    "ChapterChanges",
    "ChapterRefView",
    "ChapterRenamedView",
    "CreateVersion",
    "LineView",
    "RollBack",
    "VersionChapter",
    "VersionDetail",
    "VersionDiff",
    "VersionNumber",
    "VersionPage",
    "VersionView",
)

#: The number of a version of a study; the limit is below the maximum of PostgreSQL's integer.
VersionNumber = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Label = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), OneLine]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateVersion(_Request):
    """Body of ``POST /studies/{id}/versions``, which saves the present state of the study."""

    label: _Label = ""


class RollBack(_Request):
    """Body of ``POST /studies/{id}/rollback``, which restores chapters and description of a version."""

    version: VersionNumber


class VersionView(BaseModel):
    """A version in the list of its study."""

    #: Number of the version in its study: from 1, without gaps.
    number: int
    label: str
    #: A rollback creates a version, too: number of the version that this rollback restored. Null if a user
    #: saved this version.
    restored_from: int | None
    title: str
    chapters_count: int
    created_by: str
    created_at: AwareDatetime


class VersionPage(BaseModel):
    """A page of versions, newest first."""

    items: list[VersionView]
    #: Null on the last page.
    next_cursor: str | None = None


class VersionChapter(BaseModel):
    """A chapter of a version."""

    id: UUID
    position: int
    title: str
    headers: dict[str, str]
    #: ``start``: the annotation before the first move. ``moves``: each move with ``parent`` (index of the
    #: previous move in this list, -1 for a first move), ``uci`` and the fields of its annotation; empty
    #: fields are omitted.
    moves: dict[str, Any]


class VersionDetail(VersionView):
    """A version with its content."""

    description: str
    chapters: list[VersionChapter]


class ChapterRefView(BaseModel):
    """A chapter that only one of two versions has."""

    chapter_id: UUID
    title: str


class ChapterRenamedView(BaseModel):
    """A chapter that both versions have, with different titles."""

    chapter_id: UUID
    before: str
    after: str


class LineView(BaseModel):
    """A move that only one of two versions has, together with all moves after it."""

    #: Path of the move.
    path: str
    #: Number of moves, including this move.
    moves: int


class ChapterChanges(BaseModel):
    """The changes of one chapter.

    A list of moves or paths has at most the first 500; the number of all is in the field ``…_count``.
    """

    chapter_id: UUID
    #: Names of added, removed and changed headers.
    headers: list[str]
    moves_added: list[LineView]
    moves_added_count: int
    moves_removed: list[LineView]
    moves_removed_count: int
    #: Paths of moves whose annotation was changed; the empty path is the start.
    annotated: list[str]
    annotated_count: int
    #: Paths of moves after which the order of variations was changed; the empty path is the start.
    reordered: list[str]
    reordered_count: int


class VersionDiff(BaseModel):
    """The changes from one version to another, or to the current study."""

    version: int
    #: The number of the other version, or ``current``.
    against: int | Literal["current"]
    title_changed: bool
    description_changed: bool
    added: list[ChapterRefView]
    removed: list[ChapterRefView]
    renamed: list[ChapterRenamedView]
    #: Whether the chapters that both versions have are in a different order.
    reordered: bool
    changed: list[ChapterChanges]
