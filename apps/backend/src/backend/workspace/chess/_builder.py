"""Growing a tree while its moves are read in the order PGN writes them."""

from functools import lru_cache
from typing import Final

import chess

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
from backend.workspace.errors import AnnotationInvalid, MovesFull, VariationsFull

__all__ = ("GameRefused", "TreeBuilder")

#: Characters of the comments at one move as they stand in the file, with their commands.
_RAW_CHARS_MAX: Final = 2 * TEXT_CHARS_MAX
_SHORT_CHARS_MAX: Final = 30


class GameRefused(Exception):
    """A game that cannot be read whole; it is skipped, never cut."""

    def __init__(self, reason: str, at: int, resume: int) -> None:
        super().__init__(reason)
        self.reason = reason
        #: Where in the text the reason stands.
        self.at = at
        #: From where on the next game may begin.
        self.resume = resume


@lru_cache(maxsize=4_096)
def _short(text: str) -> Annotation:
    """The annotation of a short comment; most are clocks, which come again from game to game."""
    return canonical(Annotation(text=text))


class _Said:
    """What is said at one move, as it is gathered."""

    __slots__ = ("after", "at", "before", "chars", "nags")

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[str] = []
        self.nags: set[int] = set()
        #: Where in the text the last of the comments stands.
        self.at = 0
        self.chars = 0

    def grow(self, chars: int, at: int) -> None:
        """Count *chars* more, of comments whose last stands at *at*.

        Raises:
            GameRefused: there are too many.
        """
        self.chars += chars
        self.at = max(self.at, at)
        if self.chars > _RAW_CHARS_MAX:
            raise GameRefused(f"the comments have more than {TEXT_CHARS_MAX:,} characters", at, at)

    def annotation(self, *, first: bool) -> Annotation:
        """The same as a tree has it; what is the *first* move after another has no text before it.

        Raises:
            GameRefused: an annotation cannot hold it.
        """
        before, after = ([], self.before + self.after) if first else (self.before, self.after)
        text = " ".join(after)
        try:
            if len(text) <= _SHORT_CHARS_MAX and not (before or self.nags):
                return _short(text)
            return canonical(Annotation(text=text, before=" ".join(before), nags=tuple(self.nags)))
        except AnnotationInvalid as error:
            raise GameRefused(str(error), self.at, self.at) from None


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
        self._said: dict[int, _Said] = {}
        # What is said before the first move of a variation, until that is read.
        self._waiting: _Said | None = None
        self._lines = [_Line(START, None)]
        self._branched = False
        # Those that a file gives twice count twice, so that a file of nothing else comes to an end.
        self._moves_read = 0

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
        self._moves_read += 1
        if self._moves_read > MOVES_MAX:
            raise MovesFull(MOVES_MAX)
        line = self._lines[-1]
        siblings = self._children[line.at + 1]
        index = len(self._ucis)
        if siblings:
            index = self._beside(siblings, uci, index, leads=line.leads)
        else:
            siblings.append(index)
        if index == len(self._ucis):
            self._parents.append(line.at)
            self._ucis.append(uci)
            self._children.append([])
            line.leads = True
        line.at = index
        line.made += 1
        if self._waiting:
            waiting, self._waiting = self._waiting, None
            said = self._at(index)
            said.before += waiting.before
            said.nags |= waiting.nags
            said.grow(waiting.chars, waiting.at)

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

    def _at(self, index: int) -> _Said:
        said = self._said.get(index)
        if said is None:
            said = self._said[index] = _Said()
        return said

    def nag(self, nag: int) -> None:
        """Take a glyph: of the last move, or, where a line begins, of the next one."""
        line = self._lines[-1]
        if line.made:
            self._at(line.at).nags.add(nag)
        else:
            self._waiting = self._waiting or _Said()
            self._waiting.nags.add(nag)

    def comment(self, text: str, at: int) -> None:
        """Take the comment at *at*: after the last move, before the first of a variation, or before the game.

        Raises:
            GameRefused: it is too long, by itself or with what was said there before.
        """
        text = text.strip()
        if not text:
            return
        line = self._lines[-1]
        if line.made or line.instead_of is None:
            said = self._at(line.at)
            said.after.append(text)
        else:
            said = self._waiting = self._waiting or _Said()
            said.before.append(text)
        said.grow(len(text), at)

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
        if self._waiting:
            # A variation without moves: what it said belongs to the move it was to replace.
            waiting, self._waiting = self._waiting, None
            said = self._at(self._lines[-1].at)
            said.after += waiting.before
            said.grow(waiting.chars, waiting.at)
        return True

    def tree(self) -> MoveTree:
        """The tree of what has been read.

        Raises:
            GameRefused: comments are too long, or say what an annotation cannot hold.
        """
        start = self._said[START].annotation(first=True) if START in self._said else NO_ANNOTATION
        parents = self._parents
        order = self._preorder() if self._branched else range(len(parents))
        new = [0] * len(parents) + [START]
        moves: list[Move] = []
        for at, old in enumerate(order):
            new[old] = at
            parent = parents[old]
            said = NO_ANNOTATION
            if old in self._said:
                said = self._said[old].annotation(first=self._children[parent + 1][0] == old)
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
