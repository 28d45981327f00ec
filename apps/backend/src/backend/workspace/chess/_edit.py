"""Change trees of moves: add, delete, promote, demote, annotate. Each function returns a new tree."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import chess

from backend.workspace.chess._comments import move_before_into_text, to_canonical
from backend.workspace.chess._headers import start_board
from backend.workspace.chess._moves import parse_move
from backend.workspace.chess._render import RenderedMove
from backend.workspace.chess._tree import MOVES_MAX, START, VARIATIONS_MAX, Annotation, Move, MoveTree
from backend.workspace.errors import (
    AnnotationInvalid,
    MoveExists,
    MoveNotFound,
    MovesFull,
    VariationFirst,
    VariationLast,
    VariationsFull,
)

__all__ = ("AddedMove", "add_move", "annotate", "delete_move", "demote", "promote")

_UP: Final = -1
_DOWN: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AddedMove:
    """A tree with a new move."""

    tree: MoveTree
    #: The path of the new move.
    path: str
    #: The new move; castling is the king's move of two squares (Chess960: onto the rook).
    uci: str
    #: SAN, position and ply of the new move.
    rendered: RenderedMove


def add_move(tree: MoveTree, headers: Mapping[str, str], path: str, move: str) -> AddedMove:
    """Add a move as the last variation after the move at *path*.

    Args:
        tree: The moves of the chapter.
        headers: The headers of the chapter, with the starting position.
        path: The path of the previous move; empty to add a first move.
        move: The move in UCI or SAN.

    Raises:
        MoveNotFound: No move has the path.
        MoveIllegal: The move is not legal in the position after *path*.
        MoveExists: The same move after *path* exists already.
        VariationsFull: The move at *path* has `VARIATIONS_MAX` variations.
        MovesFull: The tree has `MOVES_MAX` moves.
        PositionInvalid: The headers contain no legal position.
    """
    parent = tree.find(path)
    board = start_board(headers)
    line = tree.line_to(parent)
    for uci in line:
        # The moves of a tree are legal; checking them again would triple the time.
        board.push(chess.Move.from_uci(uci))
    wanted = parse_move(board, move)
    uci = board.uci(wanted)
    siblings = tree.children()[parent]
    new_path = ".".join([*line, uci])
    if any(tree.moves[one].uci == uci for one in siblings):
        raise MoveExists(new_path)
    if len(siblings) > VARIATIONS_MAX:
        raise VariationsFull(VARIATIONS_MAX)
    if len(tree.moves) >= MOVES_MAX:
        raise MovesFull(MOVES_MAX)
    at = tree.end_of(parent) if parent != START else len(tree.moves)
    grown = _inserted(tree, at, Move(parent, uci))
    san = board.san_and_push(wanted)
    return AddedMove(tree=grown, path=new_path, uci=uci, rendered=RenderedMove(san, board.fen(), board.ply()))


def delete_move(tree: MoveTree, path: str) -> MoveTree:
    """Remove the move at *path* with its subtree; a main continuation is replaced by the next variation.

    Raises:
        MoveNotFound: No move has the path.
    """
    index = _move(tree, path)
    end = tree.end_of(index)
    left = tree.reordered([*range(index), *range(end, len(tree.moves))])
    return _first_folded(left, tree.moves[index].parent)


def promote(tree: MoveTree, path: str) -> MoveTree:
    """Swap the variation that begins with the move at *path* with the previous variation.

    PGN has no place for a text before the first move of a main line. If the variation becomes the main line,
    its text ``before`` is moved to the start of ``text``.

    Raises:
        MoveNotFound: No move has the path.
        VariationFirst: The move is the main continuation already.
    """
    return _stepped(tree, path, _UP)


def demote(tree: MoveTree, path: str) -> MoveTree:
    """Swap the variation that begins with the move at *path* with the next variation.

    Raises:
        MoveNotFound: No move has the path.
        VariationLast: The variation is the last one of its position.
    """
    return _stepped(tree, path, _DOWN)


def annotate(tree: MoveTree, path: str, annotation: Annotation) -> MoveTree:
    """Replace the annotation of the move at *path*; the empty path is the starting position.

    The annotation is stored in the form of :func:`to_canonical`. For a move that does not begin a variation,
    ``before`` is moved to the start of ``text``.

    Raises:
        MoveNotFound: No move has the path.
        AnnotationInvalid: The annotation is too long, PGN cannot express it, or the start has glyphs.
    """
    index = tree.find(path)
    made = to_canonical(annotation)
    if index == START and made.nags:
        raise AnnotationInvalid(
            "the starting position cannot have numeric annotation glyphs (nags); send an empty list"
        )
    if index == START or tree.siblings(index)[0] == index:
        made = move_before_into_text(made)
    return tree.with_annotations({index: made})


def _move(tree: MoveTree, path: str) -> int:
    index = tree.find(path)
    if index == START:
        raise MoveNotFound(path)
    return index


def _stepped(tree: MoveTree, path: str, step: int) -> MoveTree:
    index = _move(tree, path)
    siblings = tree.siblings(index)
    place = siblings.index(index)
    if not 0 <= place + step < len(siblings):
        raise VariationFirst(path) if step == _UP else VariationLast(path)
    above, below = sorted((index, siblings[place + step]))
    middle, end = tree.end_of(above), tree.end_of(below)
    # In preorder, siblings are adjacent, each followed by its subtree.
    swapped = [*range(above), *range(below, end), *range(above, middle), *range(end, len(tree.moves))]
    return _first_folded(tree.reordered(swapped), tree.moves[index].parent)


def _inserted(tree: MoveTree, at: int, move: Move) -> MoveTree:
    shifted = (replace(one, parent=one.parent + (one.parent >= at)) for one in tree.moves[at:])
    return MoveTree((*tree.moves[:at], move, *shifted), tree.start)


def _first_folded(tree: MoveTree, parent: int) -> MoveTree:
    """Return *tree* with ``before`` of the first child of *parent* moved to the start of ``text``."""
    first = tree.children()[parent][:1]
    return tree.with_annotations({one: move_before_into_text(tree.moves[one].annotation) for one in first})
