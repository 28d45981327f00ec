"""Build a tree of moves from the moves, comments and variations of a game in the order of PGN."""

from functools import lru_cache
from typing import Final

import chess

from backend.workspace.chess._comments import TEXT_CHARS_MAX, to_canonical
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

#: Maximum number of characters in the comments of one move in the file, including commands.
_RAW_CHARS_MAX: Final = 2 * TEXT_CHARS_MAX
_SHORT_CHARS_MAX: Final = 30
_MERGED_NOTE: Final = "a variation begins with a move that exists already; the two are merged"


class GameRefused(Exception):
    """Raised for a game that cannot be parsed completely; the whole game is skipped, never a part of it."""

    def __init__(self, reason: str, at: int, resume: int) -> None:
        super().__init__(reason)
        self.reason = reason
        #: The offset of the error in the text of the file.
        self.at = at
        #: The offset from which the parser searches the next game.
        self.resume = resume


@lru_cache(maxsize=4_096)
def _short(text: str) -> Annotation:
    """Return the annotation of a short comment. Cached: most are clock times that repeat in many games."""
    return to_canonical(Annotation(text=text))


class _AnnotationParts:
    """The comments and glyphs of one move of the tree, collected while the file is parsed.

    A file may contain a move several times, mostly because a variation begins with the move that it should
    replace. The tree has the move once. The line in which the move is the main continuation is called the
    leading line; the move in other lines is called a repetition. The annotation has the comments and glyphs
    of the leading line, and then the comments of repetitions; glyphs of repetitions are dropped.
    """

    __slots__ = ("after", "at", "before", "chars", "later", "nags", "repeated_nags")

    def __init__(self) -> None:
        self.before: list[str] = []
        self.after: list[str] = []
        #: Comments of repetitions of the move.
        self.later: list[str] = []
        #: Glyphs with their offsets.
        self.nags: dict[int, int] = {}
        #: Glyphs of repetitions with their offsets.
        self.repeated_nags: dict[int, int] = {}
        #: The offset of the last comment.
        self.at = 0
        self.chars = 0

    def grow(self, chars: int, at: int) -> None:
        """Count *chars* more characters of comments, of which the last comment begins at the offset *at*.

        Raises:
            GameRefused: The comments have too many characters.
        """
        self.chars += chars
        self.at = max(self.at, at)
        if self.chars > _RAW_CHARS_MAX:
            raise GameRefused(f"the comments of a move have more than {TEXT_CHARS_MAX:,} characters", at, at)

    def yield_to_leader(self) -> None:
        """Treat all parts so far as those of repetitions: the leading line comes later in the file."""
        self.later += self.before + self.after
        self.before, self.after = [], []
        self.repeated_nags |= self.nags
        self.nags = {}

    def take_first(self, waiting: "_AnnotationParts", *, repeats: bool) -> None:
        """Add the comments and glyphs that a variation has before this move, its first move.

        Args:
            waiting: These comments and glyphs.
            repeats: Whether the move of the variation is a repetition.

        Raises:
            GameRefused: The comments have too many characters.
        """
        if repeats:
            self.later += waiting.before
            self.repeated_nags |= waiting.nags
        else:
            self.before += waiting.before
            self.nags |= waiting.nags
        self.grow(waiting.chars, waiting.at)

    def note_dropped(self, notes: Notes) -> None:
        """Add a note for each glyph that only repetitions of the move have."""
        for nag, at in self.repeated_nags.items():
            if nag not in self.nags:
                notes.dropped(at, f"the glyph ${nag} of a move that occurs twice")

    def annotation(self, *, first: bool) -> Annotation:
        """Return the annotation of the move.

        *first*: the move is a main continuation. PGN allows no comment before such a move, so comments
        before the move are put at the start of the comment after the move.

        Raises:
            GameRefused: The annotation is not valid.
        """
        before, after = ([], self.before + self.after) if first else (self.before, self.after)
        # Repetitions often repeat the comment too, for example a clock.
        text = " ".join(dict.fromkeys(after + self.later) if self.later else after)
        try:
            if len(text) <= _SHORT_CHARS_MAX and not (before or self.nags):
                return _short(text)
            return to_canonical(Annotation(text=text, before=" ".join(before), nags=tuple(self.nags)))
        except AnnotationInvalid as error:
            raise GameRefused(str(error), self.at, self.at) from None


class _Line:
    """A line of moves during parsing: the main line or a variation."""

    __slots__ = ("at", "begins", "instead_of", "leads", "made", "repeats")

    def __init__(self, at: int, instead_of: chess.Move | None, begins: int = 0) -> None:
        #: The index in the tree of the last move.
        self.at = at
        #: The offset in the text at which the line begins.
        self.begins = begins
        #: The move that this variation replaces; None for the main line.
        self.instead_of = instead_of
        #: Whether the next move is the main continuation of `at`. False if `at` is a repetition that was
        #: merged into an earlier move.
        self.leads = instead_of is None
        #: Whether the move `at` repeats a move of another line, which is the leading one.
        self.repeats = False
        #: Number of moves of this line that were made on the board.
        self.made = 0


class TreeBuilder:
    """Builds a tree of moves; the parser calls a method for each token of the game.

    All lines use one board. The builder makes each move on the board. At the start of a variation it takes
    back the move that the variation replaces; at the end, it takes back the variation and makes that move
    again.

    Invariant: the board has the position after the last move of the innermost line.
    """

    def __init__(self, board: chess.Board, notes: Notes) -> None:
        self._board = board
        self._notes = notes
        self._parents: list[int] = []
        self._ucis: list[str] = []
        #: For each move, the offset of its line.
        self._begins: list[int] = []
        self._children: list[list[int]] = [[]]  # of the start, then of each move
        self._parts: dict[int, _AnnotationParts] = {}
        # Comments and glyphs before the first move of a variation, until the move is parsed.
        self._waiting: _AnnotationParts | None = None
        self._lines = [_Line(START, None)]
        self._branched = False
        # Repetitions count too, so that a file of repetitions exceeds the limit.
        self._moves_read = 0

    @property
    def empty(self) -> bool:
        """Return whether the tree has no moves yet."""
        return not self._ucis

    @property
    def depth(self) -> int:
        """Return the number of open variations."""
        return len(self._lines) - 1

    @property
    def place(self) -> str:
        """Return the number of the next move as text: ``12.`` or ``12...``."""
        return f"{self._board.fullmove_number}{'.' if self._board.turn else '...'}"

    def move(self, word: str) -> None:
        """Make the move *word*, in SAN, and add it to the tree.

        Raises:
            ValueError: The move is illegal.
            VariationsFull, MovesFull: A limit is exceeded.
        """
        uci = play_san(self._board, word)
        self._moves_read += 1
        if self._moves_read > MOVES_MAX:
            raise MovesFull(MOVES_MAX)
        line = self._lines[-1]
        siblings = self._children[line.at + 1]
        index = len(self._ucis)
        if siblings:
            index = self._add_sibling(siblings, uci, index, leads=line.leads)
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
        elif index in self._parts:
            self._parts[index].yield_to_leader()
        line.at = index
        line.made += 1
        if self._waiting:
            waiting, self._waiting = self._waiting, None
            self._at(index).take_first(waiting, repeats=line.repeats)

    def _add_sibling(self, siblings: list[int], uci: str, index: int, *, leads: bool) -> int:
        """Return the index of the sibling with the move *uci*; if there is none, add and return *index*.

        *leads*: put this sibling first, as the main continuation.

        Raises:
            VariationsFull: The previous move would have more than `VARIATIONS_MAX` variations.
        """
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

    def _at(self, index: int) -> _AnnotationParts:
        parts = self._parts.get(index)
        if parts is None:
            parts = self._parts[index] = _AnnotationParts()
        return parts

    def nag(self, nag: int, at: int) -> None:
        """Add the glyph at the offset *at* to the last move, or, at the start of a line, to the next move."""
        line = self._lines[-1]
        if not line.made:
            self._waiting = parts = self._waiting or _AnnotationParts()
        else:
            parts = self._at(line.at)
        (parts.repeated_nags if line.repeats else parts.nags).setdefault(nag, at)

    def comment(self, text: str, at: int) -> None:
        """Add the comment at the offset *at* to the last move.

        At the start of a variation the comment belongs to the next move; at the start of the game, to the
        starting position.

        Raises:
            GameRefused: The comments of the move have too many characters.
        """
        text = text.strip()
        if not text:
            return
        line = self._lines[-1]
        if line.made or line.instead_of is None:
            parts = self._at(line.at)
            (parts.later if line.repeats else parts.after).append(text)
        else:
            parts = self._waiting = self._waiting or _AnnotationParts()
            parts.before.append(text)
        parts.grow(len(text), at)

    def open(self, at: int) -> bool:
        """Open a variation, at the offset *at*, that replaces the last move of the innermost line.

        Return False if that line has no move yet.
        """
        line = self._lines[-1]
        if not line.made:
            return False
        self._lines.append(_Line(self._parents[line.at], self._board.pop(), at))
        return True

    def close(self) -> bool:
        """Close the innermost variation; return False if none is open."""
        if len(self._lines) == 1:
            return False
        line = self._lines.pop()
        for _ in range(line.made):
            self._board.pop()
        assert line.instead_of is not None
        self._board.push(line.instead_of)
        if self._waiting:
            # The variation has no moves: add its comments to the move that the variation would replace.
            waiting, self._waiting = self._waiting, None
            parts = self._at(self._lines[-1].at)
            parts.after += waiting.before
            parts.grow(waiting.chars, waiting.at)
            self._drop_waiting_nags(waiting)
        return True

    def _drop_waiting_nags(self, waiting: _AnnotationParts) -> None:
        for nag, at in waiting.nags.items():
            self._notes.dropped(at, f"the glyph ${nag}, which follows no move")

    def tree(self) -> MoveTree:
        """Return the tree; its main line ends where the main line of the file ends.

        Raises:
            GameRefused: Comments are too long, or not valid as an annotation.
        """
        if self._waiting:
            self._drop_waiting_nags(self._waiting)
        for one in self._parts.values():
            one.note_dropped(self._notes)
        start = self._parts[START].annotation(first=True) if START in self._parts else NO_ANNOTATION
        parents = self._parents
        order = self._preorder() if self._branched else range(len(parents))
        new = [0] * len(parents) + [START]
        moves: list[Move] = []
        for at, old in enumerate(order):
            new[old] = at
            parent = parents[old]
            annotation = NO_ANNOTATION
            if old in self._parts:
                annotation = self._parts[old].annotation(first=self._children[parent + 1][0] == old)
            moves.append(Move(new[parent], self._ucis[old], annotation))
        tree = MoveTree(tuple(moves), start)
        main = self._lines[0]
        if main.made and (rest := self._children[main.at + 1]):
            # In preorder, the main line comes first.
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
