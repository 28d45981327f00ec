"""The moves of a chapter with their variations and annotations: an immutable flat list.

The moves are in preorder: a move, then its subtree, then its next sibling. The first child of a move is its
main continuation, the others are variations; the main continuations from the start are the main line.
Siblings are different moves, so the UCI moves from the start, joined by dots, identify a move. This text
is called its path, and does not change when variations are promoted.

A flat list, because JSON parsers do not accept objects that are nested 300 levels deep.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self, cast

from backend.workspace.errors import MoveNotFound

__all__ = ("MOVES_MAX", "NO_ANNOTATION", "START", "VARIATIONS_MAX", "Annotation", "Move", "MoveTree")

Document = dict[str, Any]

MOVES_MAX: Final = 20_000
"""Maximum number of moves in one tree, including variations."""
VARIATIONS_MAX: Final = 10
"""Maximum number of variations after one move, in addition to the main continuation."""
START: Final = -1
"""The index that stands for the starting position; its path is empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotation:
    """The annotation of a move or of the starting position, in the form that :func:`to_canonical` returns."""

    #: The comment after the move; line breaks are ``\n``.
    text: str = ""
    #: The comment before the move, only of the first move of a variation (PGN has no other place).
    before: str = ""
    #: Numeric annotation glyphs 0 to 255, ascending (PGN standard, 10).
    nags: tuple[int, ...] = ()
    #: Remaining time of the player in seconds, with three decimals; None without a clock.
    clock_s: float | None = None
    #: Arrows on the board, each a colour and two squares: ``Ge2e4``.
    arrows: tuple[str, ...] = ()
    #: Circles on the board, each a colour and a square: ``Rd4``.
    circles: tuple[str, ...] = ()

    def document(self) -> Document:
        """Return the annotation as JSON, without empty fields."""
        document: Document = {}
        if self.nags:
            document["nags"] = list(self.nags)
        if self.text:
            document["text"] = self.text
        if self.before:
            document["before"] = self.before
        if self.clock_s is not None:
            document["clock_s"] = self.clock_s
        if self.arrows:
            document["arrows"] = list(self.arrows)
        if self.circles:
            document["circles"] = list(self.circles)
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Create an annotation from the result of :meth:`document`; other keys are ignored."""
        clock_s = document.get("clock_s")
        return cls(
            text=document.get("text", ""),
            before=document.get("before", ""),
            nags=tuple(document.get("nags", ())),
            clock_s=None if clock_s is None else float(clock_s),
            arrows=tuple(document.get("arrows", ())),
            circles=tuple(document.get("circles", ())),
        )


NO_ANNOTATION: Final = Annotation()


@dataclass(frozen=True, slots=True)
class Move:
    """One move of a tree."""

    #: Index of the previous move; `START` for a first move.
    parent: int
    #: UCI; castling is the king's move of two squares (Chess960: onto the rook); ``0000`` is a null move.
    uci: str
    annotation: Annotation = NO_ANNOTATION


@dataclass(frozen=True, slots=True)
class MoveTree:
    """A tree of moves.

    Invariants: the moves are in preorder, and at most `MOVES_MAX`; siblings are different moves, and at most
    `VARIATIONS_MAX` + 1; only the second and later siblings have ``before``; the annotation of the starting
    position has neither glyphs nor ``before``.
    """

    moves: tuple[Move, ...] = ()
    #: The annotation of the starting position.
    start: Annotation = NO_ANNOTATION

    def __repr__(self) -> str:
        return f"<MoveTree {len(self.moves)} moves>"

    def check(self) -> None:
        """Assert the invariants; an AssertionError is a defect of the code, whatever a client has sent."""
        assert len(self.moves) <= MOVES_MAX
        assert not self.start.nags
        assert not self.start.before
        open_moves = [START]
        siblings: dict[int, list[str]] = {}
        for index, move in enumerate(self.moves):
            while open_moves[-1] != move.parent:
                open_moves.pop()
            open_moves.append(index)
            others = siblings.setdefault(move.parent, [])
            assert move.uci not in others
            assert others or not move.annotation.before
            others.append(move.uci)
            assert len(others) <= VARIATIONS_MAX + 1

    def children(self) -> list[list[int]]:
        """Return the indexes of the children of each move, the main continuation first.

        The last entry is that of the starting position, so ``children()[START]`` are the first moves.
        """
        after: list[list[int]] = [[] for _ in range(len(self.moves) + 1)]
        for index, move in enumerate(self.moves):
            after[move.parent].append(index)
        return after

    def siblings(self, index: int) -> list[int]:
        """Return the indexes of the moves with the same parent as *index*, the main continuation first."""
        parent = self.moves[index].parent
        return [at for at, move in enumerate(self.moves) if move.parent == parent]

    def end_of(self, index: int) -> int:
        """Return the index after the last move of the subtree of *index*."""
        moves = self.moves
        for at in range(index + 1, len(moves)):
            if moves[at].parent < index:
                return at
        return len(moves)

    def find(self, path: str) -> int:
        """Return the index of the move with *path*; `START` for the empty path.

        Raises:
            MoveNotFound: No move has the path.
        """
        at, wanted = START, path.split(".") if path else []
        # Moves are stored after their parents, so one pass finds each step of the path in order.
        steps = iter(wanted)
        step = next(steps, None)
        for index, move in enumerate(self.moves):
            if step is None:
                break
            if move.parent == at and move.uci == step:
                at, step = index, next(steps, None)
        if step is not None:
            raise MoveNotFound(path)
        return at

    def path_of(self, index: int) -> str:
        """Return the path of the move at *index*."""
        return ".".join(self.line_to(index))

    def line_to(self, index: int) -> list[str]:
        """Return the moves in UCI from the start up to and including the move *index*."""
        line: list[str] = []
        while index != START:
            line.append(self.moves[index].uci)
            index = self.moves[index].parent
        return line[::-1]

    def reordered(self, order: Sequence[int]) -> "MoveTree":
        """Return the tree of the moves at the indexes in *order*, which must be a preorder."""
        new = {START: START} | {old: at for at, old in enumerate(order)}
        moves = [self.moves[old] for old in order]
        return MoveTree(tuple(Move(new[one.parent], one.uci, one.annotation) for one in moves), self.start)

    def with_annotations(self, changed: Mapping[int, Annotation]) -> "MoveTree":
        """Return the tree with the annotations *changed*, by index of the move or `START`."""
        moves = list(self.moves)
        for index, annotation in changed.items():
            if index != START:
                moves[index] = Move(moves[index].parent, moves[index].uci, annotation)
        return MoveTree(tuple(moves), changed.get(START, self.start))

    def document(self) -> Document:
        """Return the tree as JSON: ``start``, and ``moves`` with ``parent``, ``uci`` and the annotation."""
        document: Document = {"moves": list(_documents(self.moves))}
        if self.start != NO_ANNOTATION:
            document["start"] = self.start.document()
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "MoveTree":
        """Create a tree from the result of :meth:`document`."""
        moves = cast("Iterable[Mapping[str, Any]]", document["moves"])
        start = Annotation.from_document(document.get("start", {}))
        return cls(
            tuple(
                Move(
                    one["parent"],
                    one["uci"],
                    Annotation.from_document(one) if len(one) > 2 else NO_ANNOTATION,
                )
                for one in moves
            ),
            start,
        )


def _documents(moves: Iterable[Move]) -> Iterable[Document]:
    for move in moves:
        document: Document = {"parent": move.parent, "uci": move.uci}
        if move.annotation is not NO_ANNOTATION:
            document |= move.annotation.document()
        yield document
