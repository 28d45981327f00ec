"""Growing a tree while its moves are read in the order PGN writes them."""

from functools import lru_cache
from typing import Final

import chess

from backend.workspace.chess._comments import TEXT_CHARS_MAX, canonical
from backend.workspace.chess._main_line import end_main_line
from backend.workspace.chess._moves import play_san
from backend.workspace.chess._notes import Notes
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
_MERGED_NOTE: Final = "a variation begins with a move that is given already; both are one move"


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
    """What is said at one move, as it is gathered.

    A file may give a move twice, mostly because a variation repeats it. The move's own glyphs and texts are
    those of the line that leads there; the others' texts follow, and their glyphs are dropped.
    """

    __slots__ = ("after", "at", "before", "chars", "later", "nags", "repeated_nags")

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[str] = []
        #: Texts of those that repeat the move.
        self.later: list[str] = []
        #: Glyphs, and where each of them stands.
        self.nags: dict[int, int] = {}
        #: The same of those that repeat the move.
        self.repeated_nags: dict[int, int] = {}
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

    def yield_to_leader(self) -> None:
        """Make all that is said so far that of a repetition: the line that leads here comes only now."""
        self.later += self.before + self.after
        self.before, self.after = [], []
        self.repeated_nags |= self.nags
        self.nags = {}

    def take_first(self, waiting: "_Said", *, repeats: bool) -> None:
        """Take what a variation says before its first move, this one.

        Raises:
            GameRefused: the comments are too long.
        """
        if repeats:
            self.later += waiting.before
            self.repeated_nags |= waiting.nags
        else:
            self.before += waiting.before
            self.nags |= waiting.nags
        self.grow(waiting.chars, waiting.at)

    def note_dropped(self, notes: Notes) -> None:
        """Note the glyphs that only a repetition of the move has."""
        for nag, at in self.repeated_nags.items():
            if nag not in self.nags:
                notes.dropped(at, f"the glyph ${nag} of a move that is given twice")

    def annotation(self, *, first: bool) -> Annotation:
        """The same as a tree has it; what is the *first* move after another has no text before it.

        Raises:
            GameRefused: an annotation cannot hold it.
        """
        before, after = ([], self.before + self.after) if first else (self.before, self.after)
        # A repetition often repeats the comment as well, a clock for instance.
        text = " ".join(dict.fromkeys(after + self.later) if self.later else after)
        try:
            if len(text) <= _SHORT_CHARS_MAX and not (before or self.nags):
                return _short(text)
            return canonical(Annotation(text=text, before=" ".join(before), nags=tuple(self.nags)))
        except AnnotationInvalid as error:
            raise GameRefused(str(error), self.at, self.at) from None


class _Line:
    """A line of moves that is being read: the main one, or a variation."""

    __slots__ = ("at", "begins", "instead_of", "leads", "made", "repeats")

    def __init__(self, at: int, instead_of: chess.Move | None, begins: int = 0) -> None:
        #: The last move read.
        self.at = at
        #: Where in the text it begins.
        self.begins = begins
        #: The move that this variation stands for; null for the main line.
        self.instead_of = instead_of
        #: Whether what follows is the main continuation of `at`. Not so where a file gives a move twice and
        #: the second one is merged into the first.
        self.leads = instead_of is None
        #: Whether `at` was there before, and another line leads to it.
        self.repeats = False
        #: Moves of this line that are on the board.
        self.made = 0


class TreeBuilder:
    """Grows a tree; moves are made on one board, taken back where a variation begins.

    Invariant: the board stands after the last move of the innermost line.
    """

    def __init__(self, board: chess.Board, notes: Notes) -> None:
        self._board = board
        self._notes = notes
        self._parents: list[int] = []
        self._ucis: list[str] = []
        #: Of each move, where in the text the line begins that it came with.
        self._begins: list[int] = []
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
        line.repeats = False
        if index == len(self._ucis):
            self._parents.append(line.at)
            self._ucis.append(uci)
            self._begins.append(line.begins)
            self._children.append([])
            line.leads = True
        elif not line.leads:
            if not line.made:
                self._notes.normalised(line.begins, _MERGED_NOTE)
            line.repeats = True
        elif index in self._said:
            self._said[index].yield_to_leader()
        line.at = index
        line.made += 1
        if self._waiting:
            waiting, self._waiting = self._waiting, None
            self._at(index).take_first(waiting, repeats=line.repeats)

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

    def nag(self, nag: int, at: int) -> None:
        """Take the glyph at *at*: of the last move, or, where a line begins, of the next one."""
        line = self._lines[-1]
        if not line.made:
            self._waiting = said = self._waiting or _Said()
        else:
            said = self._at(line.at)
        (said.repeated_nags if line.repeats else said.nags).setdefault(nag, at)

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
            (said.later if line.repeats else said.after).append(text)
        else:
            said = self._waiting = self._waiting or _Said()
            said.before.append(text)
        said.grow(len(text), at)

    def open(self, at: int) -> bool:
        """Begin a variation to the last move, at *at* in the text; whether there is one."""
        line = self._lines[-1]
        if not line.made:
            return False
        self._lines.append(_Line(self._parents[line.at], self._board.pop(), at))
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
            self._drop_waiting_nags(waiting)
        return True

    def _drop_waiting_nags(self, waiting: _Said) -> None:
        for nag, at in waiting.nags.items():
            self._notes.dropped(at, f"the glyph ${nag} of no move")

    def tree(self) -> MoveTree:
        """The tree of what has been read; the main line ends where the file ends it.

        Raises:
            GameRefused: comments are too long, or say what an annotation cannot hold.
        """
        if self._waiting:
            self._drop_waiting_nags(self._waiting)
        for one in self._said.values():
            one.note_dropped(self._notes)
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
        tree = MoveTree(tuple(moves), start)
        main = self._lines[0]
        if main.made and (rest := self._children[main.at + 1]):
            # The main line is what preorder begins with.
            at = self._begins[rest[0]]
            tree = end_main_line(tree, main.made - 1, self._board, self._notes, at)
        return tree

    def _preorder(self) -> list[int]:
        order: list[int] = []
        waiting = self._children[START + 1][::-1]
        while waiting:
            index = waiting.pop()
            order.append(index)
            waiting.extend(reversed(self._children[index + 1]))
        return order
