"""Chess: trees of moves, what may be done to them, and PGN; pure.

Needs the package ``chess`` (``relaybox-backend[chess]``): call
:func:`backend.workspace._chess_extra.require_chess` before this is imported.
"""

from backend.workspace._chess_extra import (
    AnnotationInvalid,
    ChessError,
    ClipPathMissing,
    HeadersInvalid,
    MoveExists,
    MoveIllegal,
    MoveNotFound,
    MovesFull,
    PositionInvalid,
    VariationFirst,
    VariationLast,
    VariationsFull,
)
from backend.workspace.chess._chapter import ChapterContent
from backend.workspace.chess._comments import SHAPES_MAX, TEXT_CHARS_MAX, canonical
from backend.workspace.chess._diff import (
    PATHS_MAX,
    ChapterDiff,
    ChapterRef,
    ChapterRenamed,
    LineRef,
    StudyDiff,
    diff,
)
from backend.workspace.chess._edit import AddedMove, add_move, annotate, delete_move, demote, promote
from backend.workspace.chess._headers import (
    HEADER_CHARS_MAX,
    HEADERS_MAX,
    TITLE_CHARS_MAX,
    check_headers,
    completed,
    title_of,
)
from backend.workspace.chess._read import ReadGame, SkippedGame, count_games, read_games
from backend.workspace.chess._shown import ShownMove, with_san
from backend.workspace.chess._tree import MOVES_MAX, START, VARIATIONS_MAX, Annotation, Move, MoveTree
from backend.workspace.chess._write import write_file, write_game

__all__ = (
    "HEADERS_MAX",
    "HEADER_CHARS_MAX",
    "MOVES_MAX",
    "PATHS_MAX",
    "SHAPES_MAX",
    "START",
    "TEXT_CHARS_MAX",
    "TITLE_CHARS_MAX",
    "VARIATIONS_MAX",
    "AddedMove",
    "Annotation",
    "AnnotationInvalid",
    "ChapterContent",
    "ChapterDiff",
    "ChapterRef",
    "ChapterRenamed",
    "ChessError",
    "ClipPathMissing",
    "HeadersInvalid",
    "LineRef",
    "Move",
    "MoveExists",
    "MoveIllegal",
    "MoveNotFound",
    "MoveTree",
    "MovesFull",
    "PositionInvalid",
    "ReadGame",
    "ShownMove",
    "SkippedGame",
    "StudyDiff",
    "VariationFirst",
    "VariationLast",
    "VariationsFull",
    "add_move",
    "annotate",
    "canonical",
    "check_headers",
    "completed",
    "count_games",
    "delete_move",
    "demote",
    "diff",
    "promote",
    "read_games",
    "title_of",
    "with_san",
    "write_file",
    "write_game",
)
