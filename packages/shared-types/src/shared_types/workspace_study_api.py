"""Define request and response bodies of studies, their chapters and moves.

A move is identified by its path: all UCI moves from the start of the chapter to this move, joined by dots
(``e2e4.e7e5.g1f3``). The path of the start is empty.
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
#: A path of 20,000 moves, the maximum of a chapter, with six characters for each move and its dot.
_Path = Annotated[str, StringConstraints(max_length=120_000)]
#: The PGN package checks which glyphs and shapes are valid.
_Nags = Annotated[list[Annotated[int, Field(ge=0, le=255)]], Field(max_length=256)]
_Shapes = Annotated[list[_Shape], Field(max_length=256)]


class ExportMode(StrEnum):
    """The part of a chapter to export."""

    FULL = "full"
    #: One move and all moves after it, without the other moves of the same position. The header ``FEN`` has
    #: the position before the move, unless the move is the first of the chapter.
    CLIP = "clip"
    #: Moves and variations only: without texts, glyphs, clocks and shapes.
    NO_COMMENT = "no_comment"
    #: The main line with its annotations, without variations.
    MAINLINE = "mainline"


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class CreateStudy(_Request):
    """Body of ``POST /studies``, which is the same as ``POST /nodes`` with the kind ``study``."""

    title: Title
    #: Id of the parent; null creates the root of a new tree, owned by the sender.
    parent_id: UUID | None = None
    description: Description = ""
    layout: Layout | None = None
    #: Null: inherited from the parent; ``shared`` for a root.
    visibility: Visibility | None = None
    #: Position among the siblings; null: after the last one.
    position: Position | None = None


class UpdateStudy(_Request):
    """Body of ``PATCH /studies/{id}``; omitted fields keep their value."""

    title: Title | None = None
    description: Description | None = None


class SetAnnotation(_Request):
    """Body of ``PUT …/annotation``: the whole annotation of a move; omitted fields are cleared."""

    #: The comment after the move.
    text: _Text = ""
    #: The comment before the move. If the move does not start a variation, this comment is moved to the
    #: beginning of ``text``.
    before: _Text = ""
    #: Numeric annotation glyphs (PGN standard, 10).
    nags: _Nags = []
    #: The remaining seconds of the player's clock.
    clock_s: Annotated[float, Field(ge=0, lt=3_600_000, allow_inf_nan=False)] | None = None
    #: Arrows, each a colour (R, G, Y, B) and two squares: ``Ge2e4``.
    arrows: _Shapes = []
    #: Circles, each a colour and a square: ``Rd4``.
    circles: _Shapes = []


class AddMove(_Request):
    """Body of ``POST …/moves``: a new move, added as the last variation of its position."""

    #: The path of the previous move; empty for a first move.
    after: _Path
    #: UCI (``g1f3``) or SAN (``Nf3``); ``--`` is a null move.
    move: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=20)]
    annotation: SetAnnotation | None = None


class ChapterEntry(BaseModel):
    """A chapter in the list of its study."""

    id: UUID
    position: int
    title: str
    #: The tag pairs (PGN standard, section 8.1).
    headers: dict[str, str]
    #: Compared with ``If-Match`` on the routes of the chapter.
    version: int
    changed_at: AwareDatetime


class StudyDetail(NodeDetail):
    """A study with its ancestors, the role of the sender, and its chapters in order."""

    chapters: list[ChapterEntry]


class AnnotationView(BaseModel):
    """The stored annotation of a move, or of the start of the chapter."""

    text: str = ""
    before: str = ""
    nags: list[int] = []
    clock_s: float | None = None
    arrows: list[str] = []
    circles: list[str] = []


class MoveView(AnnotationView):
    """A move of a chapter."""

    #: Null for all moves if the paths of the chapter would be too long for a response. A client then computes
    #: the path: follow ``parent`` to the first move, and join the values of ``uci``.
    move_path: str | None
    #: Index of the previous move in ``moves``; -1 for a first move.
    parent: int
    uci: str
    san: str
    #: Number of half-moves from the start of the game, including this move.
    ply: int
    #: The position after the move.
    fen: str


class ChapterView(ChapterEntry):
    """A chapter with its moves in preorder: a move, its continuation, then the next variation."""

    study_id: UUID
    created_at: AwareDatetime
    #: The annotation before the first move.
    start: AnnotationView
    moves: list[MoveView]


class ChapterChange(BaseModel):
    """The result of a change of one move."""

    chapter_id: UUID
    #: The version of the chapter after the change; also the ETag.
    version: int
    #: Path of the changed move; empty for the start.
    move_path: str


class AnnotatedMoveView(ChapterChange, AnnotationView):
    """The annotation of a move after a change."""


class AddedMoveView(AnnotatedMoveView):
    """An added move."""

    uci: str
    san: str
    ply: int
    #: The position after the move.
    fen: str
