"""Store moves after the end of the main line as text.

Files may have variations that repeat the last move and continue after it: ``38. Qd7 (38. Qd7 Kf8 39. Qd8#)
1-0`` shows how the game would have ended. In a tree such moves would extend the main line, so they are
written into the text of the last move instead.
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

#: More moves never fit into a text: each takes at least two characters and a space.
_MOVES_MAX: Final = TEXT_CHARS_MAX // 3


def end_main_line(tree: MoveTree, last: int, board: chess.Board, notes: Notes, at: int) -> MoveTree:
    """Remove the moves after the move *last*, and append them to the text of that move if they fit.

    Args:
        tree: The tree with all moves of the file.
        last: The index of the last move of the file's main line.
        board: The position after that move.
        notes: Gets a note about the moves.
        at: The offset of the notes in the file.
    """
    end = tree.end_of(last)
    rest = tree.moves[last + 1 : end]
    cut = tree.reordered([*range(last + 1), *range(end, len(tree.moves))])
    annotation = cut.moves[last].annotation
    longer = _with_text(annotation, rest, last, board) if len(rest) <= _MOVES_MAX else None
    moves = f"moves after the last move of the main line ({len(rest)})"
    if longer is None:
        notes.dropped(at, f"{moves}; its text has no room for them")
        return cut
    notes.normalised(at, f"{moves} are kept as its text")
    if any(one.annotation.clock_s is not None or _shapes(one) for one in rest):
        notes.dropped(at, f"clocks, arrows and circles of {moves}")
    return cut.with_annotations({last: longer})


def _shapes(move: Move) -> bool:
    return bool(move.annotation.arrows or move.annotation.circles)


def _with_text(
    annotation: Annotation, rest: tuple[Move, ...], last: int, board: chess.Board
) -> Annotation | None:
    """Return *annotation* with the moves *rest* at the end of its text; None if that would be too long."""
    # The moves are adjacent, and each parent, except that of the first, is one of them.
    moved = (Move(one.parent - last - 1, one.uci, _words(one.annotation)) for one in rest)
    tokens = movetext(MoveTree(tuple(moved)), board.copy(stack=False))
    # Remove commands: in the text of a move they would be parsed as commands of that move.
    text = unescape_comment(" ".join(tokens)).replace("{ ", "").replace(" }", "").replace("[%", "[")
    try:
        return to_canonical(replace(annotation, text=" ".join(filter(None, (annotation.text, f"({text})")))))
    except AnnotationInvalid:
        return None


def _words(annotation: Annotation) -> Annotation:
    return Annotation(text=annotation.text, before=annotation.before, nags=annotation.nags)
