"""Moves as chapters store them, changed as it was recorded; knows no rules of chess.

A chapter's document is ``{"start": annotation, "moves": [in preorder]}``, a move ``{"parent", "uci",
…annotation}``, where ``parent`` is the index of the move before it, -1 for a first one. What may be done to
it is decided by :mod:`backend.workspace.chess`, and an event says what came of it; so a rebuild makes the
same rows without that package, and also when its rules have changed since. Documents are never changed in
place: moves that stay the same are shared.
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
"""The index of the position before the first move; its path is empty."""


class Direction(IntEnum):
    """Where a variation goes among its siblings."""

    UP = -1
    DOWN = 1


def moves_of(document: Mapping[str, Any]) -> Moves:
    """The moves of a chapter's document."""
    return document.get("moves", ())


def has_move(document: Mapping[str, Any], path: str) -> bool:
    """Whether a move has this path."""
    try:
        return _find(moves_of(document), path) != START
    except KeyError:
        return False


def insert_move(document: Document, path: str, annotation: Document) -> Document:
    """The move with this path is there, the last variation after the move before it.

    Raises:
        KeyError: there is no move before it.
    """
    moves = moves_of(document)
    before, _, uci = path.rpartition(".")
    parent = _find(moves, before)
    at = len(moves) if parent == START else _end(moves, parent)
    new = {"parent": parent, "uci": uci, **annotation}
    return {**document, "moves": [*moves[:at], new, *_shifted(moves[at:], at, 1)]}


def remove_move(document: Document, path: str) -> Document:
    """The move with this path is gone, and all that followed it.

    Raises:
        KeyError: no move has the path.
    """
    moves = moves_of(document)
    at = _find(moves, path)
    end = _end(moves, at)
    return {**document, "moves": [*moves[:at], *_shifted(moves[end:], end, at - end)]}


def swap_variations(document: Document, path: str, direction: Direction) -> Document:
    """The variation that begins with this path has changed places with its neighbour.

    Raises:
        KeyError: no move has the path, or the move no neighbour there.
    """
    moves = moves_of(document)
    index = _find(moves, path)
    above = _above(moves, index) if direction is Direction.UP else index
    middle = _end(moves, above)
    if middle == len(moves) or moves[middle]["parent"] != moves[index]["parent"]:
        raise KeyError(path)
    end = _end(moves, middle)
    # Siblings stand beside each other in preorder, each with all that follows it.
    down = _shifted(moves[above:middle], above, end - middle)
    up = _shifted(moves[middle:end], middle, above - middle)
    return {**document, "moves": [*moves[:above], *up, *down, *moves[end:]]}


def set_annotations(document: Document, annotations: Mapping[str, Document]) -> Document:
    """Other annotations at the moves with these paths; the empty path is the start.

    Raises:
        KeyError: no move has one of the paths.
    """
    moves, made = list(moves_of(document)), dict(document)
    for path, annotation in annotations.items():
        index = _find(moves, path)
        if index != START:
            moves[index] = {"parent": moves[index]["parent"], "uci": moves[index]["uci"], **annotation}
        elif annotation:
            made["start"] = annotation
        else:
            made.pop("start", None)
    return {**made, "moves": moves}


def _find(moves: Moves, path: str) -> int:
    if not path:
        return START
    at, wanted = START, iter(path.split("."))
    step = next(wanted, None)
    # Children stand behind their parent, so one pass meets every step of the path in its turn.
    for index, move in enumerate(moves):
        if move["parent"] == at and move["uci"] == step:
            at, step = index, next(wanted, None)
            if step is None:
                return at
    raise KeyError(path)


def _end(moves: Moves, index: int) -> int:
    """The index behind the last move of what follows *index*."""
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
    """*moves*, whose parents from index *first* on have moved *by* so many places."""
    return [one if one["parent"] < first else {**one, "parent": one["parent"] + by} for one in moves]
