"""Growing a tree while its moves are read in the order PGN writes them."""

import chess

from backend.workspace._chess_extra import AnnotationInvalid, MovesFull, VariationsFull
from backend.workspace.chess._comments import TEXT_CHARS_MAX, canonical
from backend.workspace.chess._moves import play_san
from backend.workspace.chess._tree import (
    MOVES_MAX,
    NO_ANNOTATION,
    START,
    VARIATIONS_MAX,
    Annotation,
    Move,
    MoveTree,
)

__all__ = ("TreeBuilder",)

#: Characters of the comments at one move as they stand in the file, with their commands.
_RAW_CHARS_MAX = 2 * TEXT_CHARS_MAX


class _Line:
    """A line of moves that is being read: the main one, or a variation."""

    __slots__ = ("at", "instead_of", "leads", "made")

    def __init__(self, at: int, instead_of: chess.Move | None) -> None:
        #: The last move read.
        self.at = at
        #: The move that this variation stands for; null for the main line.
        self.instead_of = instead_of
        #: Whether what follows is the main continuation of `at`. Not so where a file gives a move twice and
        #: the second one is merged into the first.
        self.leads = instead_of is None
        #: Moves of this line that are on the board.
        self.made = 0


class TreeBuilder:
    """Grows a tree; moves are made on one board, taken back where a variation begins.

    Invariant: the board stands after the last move of the innermost line.
    """

    def __init__(self, board: chess.Board) -> None:
        self._board = board
        self._parents: list[int] = []
        self._ucis: list[str] = []
        self._children: list[list[int]] = [[]]  # of the start, then of each move
        self._comments: dict[int, list[str]] = {}
        self._before: dict[int, list[str]] = {}
        self._nags: dict[int, list[int]] = {}
        self._lines = [_Line(START, None)]
        # What has been said before the first move of a line.
        self._waiting: list[str] = []
        self._waiting_nags: list[int] = []
        self._branched = False

    @property
    def empty(self) -> bool:
        """Whether no move has been read."""
        return not self._ucis

    @property
    def depth(self) -> int:
        """How many variations are open."""
        return len(self._lines) - 1

    @property
    def place(self) -> str:
        """The number of the move that comes next: ``12.`` or ``12...``."""
        return f"{self._board.fullmove_number}{'.' if self._board.turn else '...'}"

    def move(self, word: str) -> None:
        """Make the move *word*.

        Raises:
            ValueError: it is not a legal move.
            VariationsFull, MovesFull: there are too many.
        """
        uci = play_san(self._board, word)
        line = self._lines[-1]
        siblings = self._children[line.at + 1]
        index = len(self._ucis)
        if siblings:
            index = self._beside(siblings, uci, index, leads=line.leads)
        else:
            siblings.append(index)
        if index == len(self._ucis):
            if index == MOVES_MAX:
                raise MovesFull(MOVES_MAX)
            self._parents.append(line.at)
            self._ucis.append(uci)
            self._children.append([])
            line.leads = True
        line.at = index
        line.made += 1
        if self._waiting or self._waiting_nags:
            self._say_before(index)

    def _beside(self, siblings: list[int], uci: str, index: int, *, leads: bool) -> int:
        """The place of a move beside others: that of an equal one, else *index*, which is among them now."""
        self._branched = True
        twin = next((one for one in siblings if self._ucis[one] == uci), index)
        if leads:
            if twin != index:
                siblings.remove(twin)
            siblings.insert(0, twin)
        elif twin == index:
            siblings.append(twin)
        if len(siblings) > VARIATIONS_MAX + 1:
            raise VariationsFull(VARIATIONS_MAX)
        return twin

    def _say_before(self, index: int) -> None:
        self._before.setdefault(index, []).extend(self._waiting)
        self._nags.setdefault(index, []).extend(self._waiting_nags)
        self._waiting, self._waiting_nags = [], []

    def nag(self, nag: int) -> None:
        """Take a glyph: of the last move, or, where a line begins, of the next one."""
        if self._lines[-1].made:
            self._nags.setdefault(self._lines[-1].at, []).append(nag)
        else:
            self._waiting_nags.append(nag)

    def comment(self, text: str) -> None:
        """Take a comment: after the last move, before the first one of a variation, or before the game."""
        line = self._lines[-1]
        if line.made or line.instead_of is None:
            self._comments.setdefault(line.at, []).append(text)
        else:
            self._waiting.append(text)

    def open(self) -> bool:
        """Begin a variation to the last move; whether there is one."""
        line = self._lines[-1]
        if not line.made:
            return False
        self._lines.append(_Line(self._parents[line.at], self._board.pop()))
        return True

    def close(self) -> bool:
        """End the innermost variation; whether one is open."""
        if len(self._lines) == 1:
            return False
        line = self._lines.pop()
        for _ in range(line.made):
            self._board.pop()
        assert line.instead_of is not None
        self._board.push(line.instead_of)
        # A variation without moves: what it said belongs to the move it was to replace.
        waiting, self._waiting = self._waiting, []
        for text in waiting:
            self.comment(text)
        self._waiting_nags = []
        return True

    def tree(self) -> MoveTree:
        """The tree of what has been read.

        Raises:
            AnnotationInvalid: a comment is too long, or says what an annotation cannot hold.
        """
        start = self._annotation(START, first=True)
        parents = self._parents
        annotated = self._comments.keys() | self._before.keys() | self._nags.keys()
        order = self._preorder() if self._branched else range(len(parents))
        new = [0] * len(parents) + [START]
        moves: list[Move] = []
        for at, old in enumerate(order):
            new[old] = at
            parent = parents[old]
            said = NO_ANNOTATION
            if old in annotated:
                said = self._annotation(old, first=self._children[parent + 1][0] == old)
            moves.append(Move(new[parent], self._ucis[old], said))
        return MoveTree(tuple(moves), start)

    def _preorder(self) -> list[int]:
        order: list[int] = []
        waiting = self._children[START + 1][::-1]
        while waiting:
            index = waiting.pop()
            order.append(index)
            waiting.extend(reversed(self._children[index + 1]))
        return order

    def _annotation(self, index: int, *, first: bool) -> Annotation:
        after, before = self._comments.get(index, []), self._before.get(index, [])
        if sum(map(len, after)) + sum(map(len, before)) > _RAW_CHARS_MAX:
            raise AnnotationInvalid(f"a comment has more than {TEXT_CHARS_MAX:,} characters")
        if first:
            after, before = [*before, *after], []
        return canonical(
            Annotation(text=_joined(after), before=_joined(before), nags=tuple(self._nags.get(index, ())))
        )


def _joined(texts: list[str]) -> str:
    return " ".join(filter(None, map(str.strip, texts)))
