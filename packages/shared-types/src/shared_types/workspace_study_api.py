"""Requests and answers of studies, their chapters and moves.

A move is named by its path: the UCI moves from the start to it, joined by dots (``e2e4.e7e5.g1f3``). The path
of the start is empty.
"""

from enum import StrEnum
from typing import Annotated
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from shared_types.workspace import Visibility
from shared_types.workspace_api import Description, Layout, NodeDetail, Position, Title

__all__ = (
    "AddMove",
    "AddedMoveView",
    "AnnotatedMoveView",
    "AnnotationView",
    "ChapterChange",
    "ChapterEntry",
    "ChapterView",
    "CreateStudy",
    "ExportMode",
    "MoveView",
    "SetAnnotation",
    "StudyDetail",
    "UpdateStudy",
)

_Text = Annotated[str, StringConstraints(max_length=10_000)]
_Shape = Annotated[str, StringConstraints(max_length=5)]
#: As many as a chapter has moves at most, of six characters each with the dot.
_Path = Annotated[str, StringConstraints(max_length=120_000)]
#: What a glyph may be, and that a shape is one, is a matter of PGN, and checked by its rules.
_Nags = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(max_length=256)]
_Shapes = Annotated[list[_Shape], Field(max_length=256)]


class ExportMode(StrEnum):
    """How much of a chapter is exported."""

    FULL = "full"
    #: From one move on, with the position before it as ``FEN``; its own variations are not part of it.
    CLIP = "clip"
    #: Moves and variations only: no texts, clocks and shapes, and no glyphs either, which are remarks like
    #: them.
    NO_COMMENT = "no_comment"
    #: The main line with what is said on it, without variations.
    MAINLINE = "mainline"


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateStudy(_Request):
    """``POST /studies``; the same as a node of the kind ``study``."""

    title: Title
    #: Null makes a root, which belongs to who makes it.
    parent_id: UUID | None = None
    description: Description = ""
    layout: Layout | None = None
    #: Null: as the parent's; a root is ``shared`` unless told otherwise.
    visibility: Visibility | None = None
    #: Among its siblings; null: behind the last.
    position: Position | None = None


class UpdateStudy(_Request):
    """``PATCH /studies/{id}``."""

    title: Title | None = None
    description: Description | None = None


class SetAnnotation(_Request):
    """``PUT …/annotation``: all that is said at a move; what is left out is gone."""

    #: The comment after the move.
    text: _Text = ""
    #: The comment before it; where a move begins no variation it begins the text.
    before: _Text = ""
    #: Numeric annotation glyphs (PGN standard, 10).
    nags: _Nags = []
    #: Seconds left on the mover's clock.
    clock_s: Annotated[float, Field(ge=0, lt=3_600_000, allow_inf_nan=False)] | None = None
    #: A colour (R, G, Y, B) and two squares each: ``Ge2e4``.
    arrows: _Shapes = []
    #: A colour and a square each: ``Rd4``.
    circles: _Shapes = []


class AddMove(_Request):
    """``POST …/moves``: one move more, the last variation where it stands."""

    #: Path of the move before it; empty for a first move.
    after: _Path
    #: UCI (``g1f3``) or SAN (``Nf3``); ``--`` passes.
    move: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20)]
    annotation: SetAnnotation | None = None


class ChapterEntry(BaseModel):
    """A chapter in the list of its study."""

    id: UUID
    position: int
    title: str
    #: Its tag pairs (PGN standard, 8.1).
    headers: dict[str, str]
    #: What ``If-Match`` of the chapter's own routes compares.
    version: int
    changed_at: AwareDatetime


class StudyDetail(NodeDetail):
    """A study with its place, what the reader may do on it, and its chapters in their order."""

    chapters: list[ChapterEntry]


class AnnotationView(BaseModel):
    """What is said at a move, or before the first one, as it is stored."""

    text: str = ""
    before: str = ""
    nags: list[int] = []
    clock_s: float | None = None
    arrows: list[str] = []
    circles: list[str] = []


class MoveView(AnnotationView):
    """A move of a chapter."""

    #: Null for all moves of a chapter whose paths together would be too long for an answer: join ``uci`` from
    #: the start, by ``parent``.
    move_path: str | None
    #: Place of the move before it in the list; -1 for a first move.
    parent: int
    uci: str
    san: str
    #: Half-moves since the beginning of the game, this one included.
    ply: int
    #: The position after the move.
    fen: str


class ChapterView(ChapterEntry):
    """A chapter with its moves: a move, then all that follows it, then the next variation beside it."""

    study_id: UUID
    created_at: AwareDatetime
    #: What is said before the first move.
    start: AnnotationView
    moves: list[MoveView]


class ChapterChange(BaseModel):
    """What a change of one move has led to."""

    chapter_id: UUID
    #: Of the chapter, after the change; also the ETag.
    version: int
    #: The empty path is the start.
    move_path: str


class AnnotatedMoveView(ChapterChange, AnnotationView):
    """What is said at a move now."""


class AddedMoveView(AnnotatedMoveView):
    """A move that was added."""

    uci: str
    san: str
    ply: int
    #: The position after the move.
    fen: str
