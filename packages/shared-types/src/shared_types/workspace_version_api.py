"""Request and response bodies of the versions of a study."""

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

#: Within PostgreSQL's integer.
VersionNumber = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Label = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), OneLine]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateVersion(_Request):
    """``POST /studies/{id}/versions``: save the present state of the study."""

    label: _Label = ""


class RollBack(_Request):
    """``POST /studies/{id}/rollback``: restore chapters and description of a version."""

    version: VersionNumber


class VersionView(BaseModel):
    """A version in the list of its study."""

    #: From 1, without gaps.
    number: int
    label: str
    #: The version that a rollback restored; null for a snapshot.
    restored_from: int | None
    title: str
    #: The number of chapters.
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
    #: ``start``: the annotation before the first move; ``moves``: each with ``parent`` (the index of the
    #: previous move in this list, -1 for a first move), ``uci`` and its annotation; empty fields are omitted.
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
    """A chapter with another title."""

    chapter_id: UUID
    before: str
    after: str


class LineView(BaseModel):
    """A move that only one of two versions has, with its continuation."""

    path: str
    #: The number of moves, including the first.
    moves: int


class ChapterChanges(BaseModel):
    """The changes of a chapter: the first 500 of each kind, and the number of all."""

    chapter_id: UUID
    #: Names of added, removed and changed headers.
    headers: list[str]
    moves_added: list[LineView]
    moves_added_count: int
    moves_removed: list[LineView]
    moves_removed_count: int
    #: Paths of moves with another annotation; the empty path is the start.
    annotated: list[str]
    annotated_count: int
    #: Paths of moves with another order of variations; the empty path is the start.
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
    #: Whether the common chapters have another order.
    reordered: bool
    changed: list[ChapterChanges]
