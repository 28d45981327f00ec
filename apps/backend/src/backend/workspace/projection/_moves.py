"""Change the stored tree of moves of a chapter as events require, without the rules of chess.

A chapter's document is ``{"start": annotation, "moves": [in preorder]}``. A move is ``{"parent", "uci",
…annotation}``, where ``parent`` is the index of the previous move, -1 for a first move. The path of a move is
the UCI of all moves from the start to this move, separated by dots.

Before a command emits an event, :mod:`backend.workspace.chess` checks that the change is legal, and the event
contains all results of the change. So a rebuild needs neither that package nor the rules of the release that
recorded the event. Documents are immutable, because versions of a study share unchanged moves.
"""

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any, Final

__all__ = (
    "START",
    "Direction",
    "Document",
    "has_move",
    "insert_move",
    "moves_of",
    "remove_move",
    "set_annotations",
    "swap_variations",
)

Document = dict[str, Any]
Moves = Sequence[Document]

START: Final = -1
"""The index that stands for the starting position, whose path is empty."""


class Direction(IntEnum):
    """The direction in which a variation changes places with another: UP towards the main line, or DOWN."""

    UP = -1
    DOWN = 1


def moves_of(document: Mapping[str, Any]) -> Moves:
    """Return the moves of a chapter's document."""
    return document.get("moves", ())


def has_move(document: Mapping[str, Any], path: str) -> bool:
    """Return whether *document* has a move with this path."""
    try:
        return _find(moves_of(document), path) != START
    except KeyError:
        return False


def insert_move(document: Document, path: str, annotation: Document) -> Document:
    """Add the move with this path, as the last variation of the previous move.

    Raises:
        KeyError: The previous move does not exist.
    """
    moves = moves_of(document)
    before, _, uci = path.rpartition(".")
    parent = _find(moves, before)
    at = len(moves) if parent == START else _end(moves, parent)
    new = {"parent": parent, "uci": uci, **annotation}
    return {**document, "moves": [*moves[:at], new, *_shifted(moves[at:], at, 1)]}


def remove_move(document: Document, path: str) -> Document:
    """Remove the move with this path and its subtree.

    Raises:
        KeyError: No move has the path.
    """
    moves = moves_of(document)
    at = _find(moves, path)
    end = _end(moves, at)
    return {**document, "moves": [*moves[:at], *_shifted(moves[end:], end, at - end)]}


def swap_variations(document: Document, path: str, direction: Direction) -> Document:
    """Swap the variation that begins with the move *path* with the next variation in *direction*.

    Raises:
        KeyError: No move has the path, or there is no variation in this direction.
    """
    moves = moves_of(document)
    index = _find(moves, path)
    above = _above(moves, index) if direction is Direction.UP else index
    middle = _end(moves, above)
    if middle == len(moves) or moves[middle]["parent"] != moves[index]["parent"]:
        raise KeyError(path)
    end = _end(moves, middle)
    # In preorder, siblings are adjacent, each followed by its subtree.
    down = _shifted(moves[above:middle], above, end - middle)
    up = _shifted(moves[middle:end], middle, above - middle)
    return {**document, "moves": [*moves[:above], *up, *down, *moves[end:]]}


def set_annotations(document: Document, annotations: Mapping[str, Document]) -> Document:
    """Replace the annotations of the moves with these paths; the empty path is the starting position.

    Raises:
        KeyError: A path is not that of a move.
    """
    moves, changed = list(moves_of(document)), dict(document)
    for path, annotation in annotations.items():
        index = _find(moves, path)
        if index != START:
            moves[index] = {"parent": moves[index]["parent"], "uci": moves[index]["uci"], **annotation}
        elif annotation:
            changed["start"] = annotation
        else:
            changed.pop("start", None)
    return {**changed, "moves": moves}


def _find(moves: Moves, path: str) -> int:
    if not path:
        return START
    at, wanted = START, iter(path.split("."))
    step = next(wanted, None)
    # Moves are stored after their parents, so one pass finds each step of the path in order.
    for index, move in enumerate(moves):
        if move["parent"] == at and move["uci"] == step:
            at, step = index, next(wanted, None)
            if step is None:
                return at
    raise KeyError(path)


def _end(moves: Moves, index: int) -> int:
    """Return the index after the last move of the subtree of *index*."""
    for at in range(index + 1, len(moves)):
        if moves[at]["parent"] < index:
            return at
    return len(moves)


def _above(moves: Moves, index: int) -> int:
    parent = moves[index]["parent"]
    for at in range(index - 1, parent, -1):
        if moves[at]["parent"] == parent:
            return at
    raise KeyError(moves[index]["uci"])


def _shifted(moves: Moves, first: int, by: int) -> list[Document]:
    """Return *moves* with *by* added to each ``parent`` that is at least *first*."""
    return [one if one["parent"] < first else {**one, "parent": one["parent"] + by} for one in moves]
