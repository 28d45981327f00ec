"""Parse the moves of one game, token by token (PGN standard, 7 and 8.2)."""

import re
from collections.abc import Callable
from typing import Final

import chess

from backend.workspace.chess._builder import GameRefused, TreeBuilder
from backend.workspace.chess._comments import NAG_MAX, TAG_NAME, unescape_comment
from backend.workspace.chess._notes import Notes
from backend.workspace.chess._source import FIRST_MOVE, FORUM_NOTE, FORUM_TAG, RUN_MAX, Source, skip_matches
from backend.workspace.chess._spelling import REDUNDANT, parse_nag_sign, parse_result, respell
from backend.workspace.errors import ChessError, quoted

__all__ = ("Movetext",)

#: Text between tokens: white space, dots, move numbers and ``%`` lines. A pattern of its own, because as a
#: part of `_TOKEN` it could make the matching backtrack.
_BETWEEN: Final = re.compile(
    rf"(?:[^\S\n]++|[.…]++|(?!0000)\d++(?=[\s.…])|(?!{FIRST_MOVE})\n(?:%[^\n]*+)?){{0,{RUN_MAX}}}"
)
#: One token; the number of the matching group tells the kind of token.
_TOKEN: Final = re.compile(
    r"(?:([^\s{}()\[\]<>;$!?…]++)|(\{)|(\$\d*+)|([!?]{1,2})|(\()|(\))|(;[^\n]*+)|(\[)"
    rf"|({FIRST_MOVE})|(\S))"
)
_MOVE, _OTHER = 1, 10
_TAG: Final = re.compile(rf'\[{TAG_NAME}[ \t]+"')
#: A comment after the result, on the same line or on the next.
_REMARK: Final = re.compile(r"[ \t]*\n?[ \t]*(?=\{)")

_SUFFIX_NAGS: Final = {"!": 1, "?": 2, "!!": 3, "??": 4, "!?": 5, "?!": 6}
#: Longer words are neither moves nor signs for glyphs in any notation.
_WORD_CHARS_MAX: Final = 20


class Movetext:
    """Parses the moves of one game, from the end of its headers to its result or to the next game."""

    def __init__(self, source: Source, at: int, board: chess.Board, notes: Notes) -> None:
        self._source, self._text, self._notes = source, source.text, notes
        #: The end of the game, after parsing.
        self.end = at
        #: The result at the end of the moves; ``*`` without one.
        self.marker, self.marker_at = "*", at
        self.builder = TreeBuilder(board, notes)
        self._take: tuple[Callable[[re.Match[str]], bool], ...] = (
            self._comment, self._nag, self._suffix, self._open, self._close,
            self._rest_of_line, self._bracket, self._next_first_move, self._other,
        )  # fmt: skip

    def read(self) -> None:
        """Parse to the end of the game.

        Raises:
            GameRefused: A move is illegal, a variation or comment is not closed, a token is not PGN, or a
                limit is exceeded.
        """
        text, token, move = self._text, _TOKEN.match, self.builder.move
        has_more = True
        while has_more and (found := token(text, skip_matches(_BETWEEN, text, self.end))):
            kind, self.end = found.lastindex or _OTHER, found.end()
            try:
                if kind == _MOVE:
                    has_more = self._word(found[_MOVE], found.start(_MOVE), move)
                else:
                    has_more = self._take[kind - 2](found)
            except ChessError as error:
                raise GameRefused(str(error), found.start(kind), self.end) from None
        if has_more:
            self.end = len(text)
        if self.builder.depth:
            raise GameRefused("a variation is not closed; a parenthesis is missing", self.end, self.end)

    def _word(self, word: str, at: int, move: Callable[[str], None]) -> bool:
        """Parse *word*, usually a move; return False if the word ends the game."""
        try:
            move(word)
        except ValueError as error:
            return self._unusual(word, at, error)
        return True

    def _unusual(self, word: str, at: int, error: ValueError) -> bool:
        """Parse *word*, which is not a legal move; return False if the word ends the game."""
        if len(word) > _WORD_CHARS_MAX:
            raise GameRefused(_reason(word, self.builder.place, error), at, self.end)
        if word.isdecimal():
            return True
        made = respell(word)
        for spelling in word, made.word:
            result = parse_result(spelling)
            if result is not None:
                return self._result_word(spelling, result, at)
            if self._sign(spelling, at):
                return True
        if made.word == word:
            raise GameRefused(_reason(word, self.builder.place, error), at, self.end)
        try:
            self.builder.move(made.word)
        except ValueError as again:
            raise GameRefused(_reason(word, self.builder.place, again), at, self.end) from None
        for nag in made.nags:
            self.builder.nag(nag, at)
        for note in made.notes:
            self._notes.normalised(at, note)
        return True

    def _sign(self, word: str, at: int) -> bool:
        """Parse a sign for a glyph (``+-``) or a redundant word (``e.p.``); return False for other words."""
        if sign := parse_nag_sign(word):
            nag, noted = sign
            self.builder.nag(nag, at)
            if noted:
                self._notes.normalised(at, f"{word} is read as the glyph ${nag}")
        elif word == "++":
            self._notes.normalised(at, "++ after a move is read as a check")
        return sign is not None or word in REDUNDANT

    def _result_word(self, word: str, result: str, at: int) -> bool:
        if self.builder.depth:
            self._notes.dropped(at, "a result inside a variation")
            return True
        if word != result:
            self._notes.normalised(at, f"the result {word} is read as {result}")
        self.marker_at = at
        return self._result(result)

    def _result(self, marker: str) -> bool:
        self.marker = marker
        while found := _REMARK.match(self._text, self.end):
            self.end = found.end() + 1
            self._comment_from(found.end())
        return False

    def _comment(self, found: re.Match[str]) -> bool:
        self._comment_from(found.start(2))
        return True

    def _comment_from(self, at: int) -> None:
        end, closed = self._source.comment_end(at)
        if not closed:
            raise GameRefused("a comment is not closed; a brace is missing", at, end)
        self.builder.comment(unescape_comment(self._text[at + 1 : end]), at)
        self.end = end + 1

    def _rest_of_line(self, found: re.Match[str]) -> bool:
        self.builder.comment(found[7][1:], found.start(7))
        return True

    def _nag(self, found: re.Match[str]) -> bool:
        digits = found[3][1:]
        if not 1 <= len(digits) <= 3 or int(digits) > NAG_MAX:
            raise GameRefused(
                f"{quoted(found[3])} is not a numeric annotation glyph ($0 to $255)", found.start(3), self.end
            )
        self.builder.nag(int(digits), found.start(3))
        return True

    def _suffix(self, found: re.Match[str]) -> bool:
        self.builder.nag(_SUFFIX_NAGS[found[4]], found.start(4))
        return True

    def _open(self, found: re.Match[str]) -> bool:
        if not self.builder.open(found.start(5)):
            raise GameRefused(
                "a variation begins before any move that it could replace", found.start(5), self.end
            )
        return True

    def _close(self, found: re.Match[str]) -> bool:
        if not self.builder.close():
            raise GameRefused("a closing parenthesis has no opening parenthesis", found.start(6), self.end)
        return True

    def _bracket(self, found: re.Match[str]) -> bool:
        """Parse a bracket. The game ends at ``[pgn]`` or ``[/pgn]``, and at the headers of the next game.

        Raises:
            GameRefused: The bracket begins neither of them.
        """
        at = found.start(8)
        if FORUM_TAG.match(self._text, at):
            self._notes.normalised(at, FORUM_NOTE)
            self.end = at
            return False
        line_end = self._text.rfind("\n", 0, at)
        if not _TAG.match(self._text, at) or self._text[line_end:at].strip():
            raise GameRefused("a bracket is not allowed among the moves", at, self.end)
        self.end = line_end
        return False

    def _next_first_move(self, found: re.Match[str]) -> bool:
        """Parse ``1.`` after an empty line: the game ends here, and the next game begins.

        Inside a variation, and before the first move of the game, ``1.`` is a normal move number.
        """
        self.end = found.start(9)
        if self.builder.depth or self.builder.empty:
            self.end += 1
            return True
        return False

    def _other(self, found: re.Match[str]) -> bool:
        raise GameRefused(
            f"{quoted(found[_OTHER])} is not allowed among the moves", found.start(_OTHER), self.end
        )


def _reason(word: str, place: str, error: ValueError) -> str:
    move = f"{quoted(word)} at {place}"
    if isinstance(error, chess.AmbiguousMoveError):
        return f"{move} may be several moves; add the file or rank of the piece"
    if isinstance(error, chess.IllegalMoveError):
        return f"{move} is not a legal move"
    return f"{move} is not a move; write the pieces as K, Q, R, B and N"
