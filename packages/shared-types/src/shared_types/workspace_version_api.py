"""Requests and answers of a study's versions."""

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

#: Fits PostgreSQL's integer.
VersionNumber = Annotated[int, Field(ge=1, le=1_000_000_000)]
_Label = Annotated[str, StringConstraints(strip_whitespace=True, max_length=200), OneLine]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateVersion(_Request):
    """``POST /studies/{id}/versions``: keep the study as it is now."""

    label: _Label = ""


class RollBack(_Request):
    """``POST /studies/{id}/rollback``: bring chapters and description of a version back."""

    version: VersionNumber


class VersionView(BaseModel):
    """A version in the list of its study."""

    #: From 1, without gaps.
    number: int
    label: str
    #: The version that a rollback brought back; null for a snapshot.
    restored_from: int | None
    title: str
    #: How many chapters it has.
    chapters_count: int
    created_by: str
    created_at: AwareDatetime


class VersionPage(BaseModel):
    """A page of versions, newest first."""

    items: list[VersionView]
    #: Null on the last page.
    next_cursor: str | None = None


class VersionChapter(BaseModel):
    """A chapter as it was."""

    id: UUID
    position: int
    title: str
    headers: dict[str, str]
    #: ``start``: what is said before the first move; ``moves``: each with ``parent`` (the place of the move
    #: before it in this list, -1 for a first move), ``uci``, and what is said there; without what is empty.
    moves: dict[str, Any]


class VersionDetail(VersionView):
    """A version with all that it holds."""

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
    """A move that only one of two versions has, with all that follows it."""

    path: str
    #: How many moves that are, itself included.
    moves: int


class ChapterChanges(BaseModel):
    """What changed in a chapter; of each kind the first are listed (at most 500), and all are counted."""

    chapter_id: UUID
    #: Names of the headers that came, went or changed.
    headers: list[str]
    moves_added: list[LineView]
    moves_added_count: int
    moves_removed: list[LineView]
    moves_removed_count: int
    #: Paths of moves where something else is said; the empty path is the start.
    annotated: list[str]
    annotated_count: int
    #: Paths of moves whose variations stand in another order; the empty path is the start.
    reordered: list[str]
    reordered_count: int


class VersionDiff(BaseModel):
    """What changed from one version to another, or to the study as it is now."""

    version: int
    #: The other version's number, or ``current``.
    against: int | Literal["current"]
    title_changed: bool
    description_changed: bool
    added: list[ChapterRefView]
    removed: list[ChapterRefView]
    renamed: list[ChapterRenamedView]
    #: Whether the chapters that both have stand in another order.
    reordered: bool
    changed: list[ChapterChanges]
