"""End of the main line.

In a tree, moves after the last move of the main line would extend it. Files may have such moves:
``38. Qd7 (38. Qd7 Kf8 39. Qd8#) 1-0`` shows how the game would have ended. They are stored as text.
"""

from dataclasses import replace
from typing import Final

import chess

from backend.workspace.chess._comments import TEXT_CHARS_MAX, to_canonical, unescape_comment
from backend.workspace.chess._notes import Notes
from backend.workspace.chess._tree import Annotation, Move, MoveTree
from backend.workspace.chess._write import movetext
from backend.workspace.errors import AnnotationInvalid

__all__ = ("end_main_line",)

#: A move in a text takes at least two characters and a space.
_MOVES_MAX: Final = TEXT_CHARS_MAX // 3


def end_main_line(tree: MoveTree, last: int, board: chess.Board, notes: Notes, at: int) -> MoveTree:
    """Remove the moves after the index *last*, and write them into its text if they fit.

    *board* is the position after that move; *at* is the offset for notes.
    """
    end = tree.end_of(last)
    rest = tree.moves[last + 1 : end]
    cut = tree.reordered([*range(last + 1), *range(end, len(tree.moves))])
    said = cut.moves[last].annotation
    longer = _with_text(said, rest, last, board) if len(rest) <= _MOVES_MAX else None
    moves = f"moves after the last one of the main line ({len(rest)})"
    if longer is None:
        notes.dropped(at, f"{moves}; its text has no room for them")
        return cut
    notes.normalised(at, f"{moves} are kept as its text")
    if any(one.annotation.clock_s is not None or _shapes(one) for one in rest):
        notes.dropped(at, f"clocks, arrows and circles of {moves}")
    return cut.with_annotations({last: longer})


def _shapes(move: Move) -> bool:
    return bool(move.annotation.arrows or move.annotation.circles)


def _with_text(said: Annotation, rest: tuple[Move, ...], last: int, board: chess.Board) -> Annotation | None:
    """Return *said* with the moves of *rest* at the end of its text, or None if they are too many."""
    # The moves of the rest are adjacent; the parents of all but the first are among them.
    moved = (Move(one.parent - last - 1, one.uci, _words(one.annotation)) for one in rest)
    tokens = movetext(MoveTree(tuple(moved)), board.copy(stack=False))
    # A text cannot contain commands: they would be parsed as commands of the move.
    text = unescape_comment(" ".join(tokens)).replace("{ ", "").replace(" }", "").replace("[%", "[")
    try:
        return to_canonical(replace(said, text=" ".join(filter(None, (said.text, f"({text})")))))
    except AnnotationInvalid:
        return None


def _words(annotation: Annotation) -> Annotation:
    return Annotation(text=annotation.text, before=annotation.before, nags=annotation.nags)
