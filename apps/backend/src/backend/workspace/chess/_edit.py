"""What may be done to a tree of moves; pure, each gives a new tree."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

import chess

from backend.workspace.chess._comments import canonical, folded
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
    """A tree with one move more."""

    tree: MoveTree
    #: The path of the new move.
    path: str
    #: The new move, canonical: a castling king goes to its square (Chess960: onto its rook).
    uci: str
    #: How a board shows it.
    rendered: RenderedMove


def add_move(tree: MoveTree, headers: Mapping[str, str], path: str, move: str) -> AddedMove:
    """Add *move*, in UCI or SAN, after the move that *path* names; the empty path is the start.

    It becomes the last variation there.

    Raises:
        MoveNotFound: no move has the path.
        MoveIllegal: the rules forbid the move.
        MoveExists: it stands there already.
        VariationsFull: there are `VARIATIONS_MAX` variations already.
        MovesFull: the tree has `MOVES_MAX` moves.
        PositionInvalid: the headers name no position.
    """
    parent = tree.find(path)
    board = start_board(headers)
    line = tree.line_to(parent)
    for uci in line:
        # They were legal when they came into the tree; to ask again takes twice as long as to make them.
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
    """Remove the move that *path* names and all that follows it; the next variation becomes the main line.

    Raises:
        MoveNotFound: no move has the path.
    """
    index = _move(tree, path)
    end = tree.end_of(index)
    left = tree.reordered([*range(index), *range(end, len(tree.moves))])
    return _first_folded(left, tree.moves[index].parent)


def promote(tree: MoveTree, path: str) -> MoveTree:
    """Let the variation that begins with the move at *path* change places with the one above it.

    What becomes the main line cannot have a text before it (PGN has no place for one): it begins the move's
    text.

    Raises:
        MoveNotFound: no move has the path.
        VariationFirst: it is the main line already.
    """
    return _stepped(tree, path, _UP)


def demote(tree: MoveTree, path: str) -> MoveTree:
    """Let the variation that begins with the move at *path* change places with the one below it.

    Raises:
        MoveNotFound: no move has the path.
        VariationLast: there is none below it.
    """
    return _stepped(tree, path, _DOWN)


def annotate(tree: MoveTree, path: str, annotation: Annotation) -> MoveTree:
    """Put *annotation* in place of what is said at the move that *path* names; the empty path is the start.

    It is stored as :func:`canonical` makes it. A text before a move that begins no variation begins its text.

    Raises:
        MoveNotFound: no move has the path.
        AnnotationInvalid: too long; not what PGN can say; glyphs at the start, where there is no move.
    """
    index = tree.find(path)
    made = canonical(annotation)
    if index == START and made.nags:
        raise AnnotationInvalid("a numeric annotation glyph belongs to a move; the start of a game has none")
    if index == START or tree.siblings(index)[0] == index:
        made = folded(made)
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
    # Siblings stand beside each other in preorder, each with all that follows it.
    swapped = [*range(above), *range(below, end), *range(above, middle), *range(end, len(tree.moves))]
    return _first_folded(tree.reordered(swapped), tree.moves[index].parent)


def _inserted(tree: MoveTree, at: int, move: Move) -> MoveTree:
    shifted = (replace(one, parent=one.parent + (one.parent >= at)) for one in tree.moves[at:])
    return MoveTree((*tree.moves[:at], move, *shifted), tree.start)


def _first_folded(tree: MoveTree, parent: int) -> MoveTree:
    """*tree*, whose variations after *parent* have changed, without a text before the first of them."""
    first = tree.children()[parent][:1]
    return tree.with_annotations({one: folded(tree.moves[one].annotation) for one in first})
