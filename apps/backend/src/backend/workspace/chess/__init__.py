"""Chess, without I/O: trees of moves, their changes and differences, and parsing and writing of PGN.

Needs the package ``chess`` (``relaybox-backend[chess]``): call
:func:`backend.workspace.errors.require_chess` before importing this package.
"""

from backend.workspace.chess._chapter import ChapterContent
from backend.workspace.chess._comments import SHAPES_MAX, TEXT_CHARS_MAX, to_canonical
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
from backend.workspace.chess._headers import complete_headers, game_title
from backend.workspace.chess._notes import Note
from backend.workspace.chess._read import ReadGame, SkippedGame, count_games, read_games
from backend.workspace.chess._render import RenderedMove, render_moves
from backend.workspace.chess._tree import MOVES_MAX, START, VARIATIONS_MAX, Annotation, Move, MoveTree
from backend.workspace.chess._write import write_file, write_game

__all__ = (
    "MOVES_MAX",
    "PATHS_MAX",
    "SHAPES_MAX",
    "START",
    "TEXT_CHARS_MAX",
    "VARIATIONS_MAX",
    "AddedMove",
    "Annotation",
    "ChapterContent",
    "ChapterDiff",
    "ChapterRef",
    "ChapterRenamed",
    "LineRef",
    "Move",
    "MoveTree",
    "Note",
    "ReadGame",
    "RenderedMove",
    "SkippedGame",
    "StudyDiff",
    "add_move",
    "annotate",
    "complete_headers",
    "count_games",
    "delete_move",
    "demote",
    "diff",
    "game_title",
    "promote",
    "read_games",
    "render_moves",
    "to_canonical",
    "write_file",
    "write_game",
)
