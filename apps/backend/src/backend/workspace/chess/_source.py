"""The text of a PGN file, and the offsets of its games."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass, field
from typing import Final

from backend.workspace.chess._comments import TAG_NAME, unescape_comment

__all__ = (
    "FIRST_MOVE",
    "FORUM_NOTE",
    "FORUM_TAG",
    "RESULT",
    "RUN_MAX",
    "Lead",
    "Source",
    "decode_pgn",
    "skip_matches",
)

#: Characters for bytes that are not UTF-8, by the surrogate to which `surrogateescape` decodes the byte. The
#: characters are those of Windows-1252, which most files use that claim to be Latin-1; for bytes that
#: Windows-1252 does not define, those of Latin-1.
_LATIN_1: Final = {
    0xDC00 + byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0x100)
}

_TAG: Final = rf'\[{TAG_NAME}[ \t]+"'
#: The first move of a game, after an empty line. Repetitions are bounded, so that a file of empty lines takes
#: linear time.
FIRST_MOVE: Final = r"\n[ \t]{0,20}\n\s{0,20}1[ \t]?\.(?!\.)"
RESULT: Final = r"(?:1[-–]0|0[-–]1|(?:1/2|½)[-–](?:1/2|½)|\*)"
"""A regular expression for a result, with the variants that occur in files."""
FORUM_TAG: Final = re.compile(r"\[/?pgn(?:[= ][^\]\n]{0,80})?\]", re.IGNORECASE)
"""A regular expression for [pgn] and [/pgn], which forums put around a game."""
FORUM_NOTE: Final = "[pgn] and [/pgn] around games are ignored"
_RESULT: Final = rf"(?<=\s){RESULT}(?=\s{{1,80}}(?:1[ \t]?\.|\[)|[ \t]*\n[ \t]*\n|\s*\Z)"
_NEXT: Final = re.compile(
    rf"\n[ \t]*(?={_TAG}|(?i:\[pgn[^\]\n]{{0,80}}\])[ \t]*{_TAG})|{FIRST_MOVE}|{_RESULT}|[{{;]"
)
_TAG_AT_LINE: Final = re.compile(rf"\n[ \t]*{_TAG}")
#: Maximum number of repetitions in one match: the memory of Python's re grows with each repetition.
RUN_MAX: Final = 1_000
_BLANK: Final = re.compile(rf"(?:\s++|(?<=\n)%[^\n]*+){{0,{RUN_MAX}}}")
_SQUARE: Final = r"[^\s{}()]{0,9}[a-h][1-8]|[Oo0]-[Oo0]"
_SAN_WORD: Final = r"(?:[NBRQK]?[a-h]?[1-8]?x?[a-h][1-8](?:=?[NBRQ])?|O-O(?:-O)?)[+#]?[!?]{0,2}"
#: The start of a game: a tag pair, a numbered move, or two adjacent moves.
_GAME: Final = re.compile(
    rf"{_TAG}|\d{{1,3}}[ \t]?\.[.…\s]{{0,9}}(?:{_SQUARE}|--)"
    rf"|{_SAN_WORD}\s+(?:{_SAN_WORD}|{RESULT})(?!\S)"
)


def decode_pgn(data: bytes) -> str:
    r"""Decode a file: UTF-8, or UTF-16 with a byte order mark; other bytes are Windows-1252 or Latin-1.

    Line ends become ``\n``. NUL is removed, because PostgreSQL cannot store it.
    """
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("utf-8", "surrogateescape").translate(_LATIN_1)
    # Concatenated files contain the byte order mark of each.
    return text.replace("\0", "").replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


@dataclass(slots=True, kw_only=True)
class Lead:
    """The text between the previous game and the next game, or the end of the file."""

    #: Offset of the next game; None at the end of the file.
    at: int | None = None
    #: Comments in this text, with their offsets.
    comments: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    #: Offset of the first other text; None if there is no other text.
    prose: int | None = None
    #: Offset of the first [pgn] or [/pgn]; None if there is none.
    forum: int | None = None


class Source:
    """The decoded text of a file; its methods are fastest with ascending offsets."""

    def __init__(self, data: bytes) -> None:
        #: With an additional line end at the start, so that a line end precedes each line.
        self.text = "\n" + decode_pgn(data)
        self._counted, self._line = 0, 0
        self._close = -1

    def line_of(self, at: int) -> int:
        """Return the number of the line at the offset *at*, from 1; fast near the offset of the last call."""
        if at < self._counted:
            return max(self._line - self.text.count("\n", at, self._counted), 1)
        self._line += self.text.count("\n", self._counted, at)
        self._counted = at
        return max(self._line, 1)

    def comment_end(self, at: int) -> tuple[int, bool]:
        """Return the end of the comment at the offset *at*, and whether a brace closes it.

        A comment that is not closed ends at the next game, or with the text.
        """
        text = self.text
        if self._close < at:
            # Cached, so that a text with many opening braces and no closing brace is searched only once.
            close = text.find("}", at)
            self._close = close if close >= 0 else len(text)
        tag = _TAG_AT_LINE.search(text, at, self._close) if text.find("\n", at, self._close) >= 0 else None
        if tag is not None:
            return tag.start(), False
        return self._close, self._close < len(text)

    def next_game(self, at: int) -> Lead:
        """Return the text between the offset *at* and the next game, and the offset of that game."""
        text, lead = self.text, Lead()
        while (at := _skip_blank(text, at)) < len(text):
            if text[at] in "{;":
                at = self._lead_comment(at, lead)
            elif found := FORUM_TAG.match(text, at):
                lead.forum = at if lead.forum is None else lead.forum
                at = found.end()
            elif _GAME.match(text, at):
                lead.at = at
                break
            else:
                lead.prose = at if lead.prose is None else lead.prose
                at = text.find("\n", at)
                if at < 0:
                    break
        return lead

    def _lead_comment(self, at: int, lead: Lead) -> int:
        """Add the comment at the offset *at* to *lead*; return the offset after the comment."""
        text = self.text
        if text[at] == ";":
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            lead.comments.append((at, text[at + 1 : end].strip()))
            return end
        end, closed = self.comment_end(at)
        if closed:
            lead.comments.append((at, unescape_comment(text[at + 1 : end]).strip()))
        elif lead.prose is None:
            lead.prose = at
        return end + closed

    def after_headers(self, at: int) -> int:
        """Return the offset to search the next game from, if the game with headers up to *at* is skipped.

        The offset is that of the first move of the skipped game, after the empty line before the moves: the
        search would take a first move after an empty line for the beginning of a game without headers. If a
        bracket follows instead of moves, the offset is *at*.
        """
        behind = _skip_blank(self.text, at)
        return at if self.text[behind : behind + 1] == "[" else behind

    def after_broken(self, at: int) -> int:
        """Return the offset from which to search the next game, if the game at the offset *at* is skipped."""
        text = self.text
        while found := _NEXT.search(text, at):
            match found[0][0]:
                case "{":
                    end, closed = self.comment_end(found.start())
                    if not closed:
                        return end
                    at = end + 1
                case ";":
                    at = text.find("\n", found.start())
                    if at < 0:
                        break
                case "\n":
                    return found.start()
                case _:
                    return found.end()
        return len(text)


def _skip_blank(text: str, at: int) -> int:
    """Return the first offset from *at* on that is not white space or in a line that begins with ``%``."""
    return skip_matches(_BLANK, text, at)


def skip_matches(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Return the offset after all adjacent matches of *pattern* from the offset *at* on.

    *pattern* repeats at most `RUN_MAX` times, so several matches may be necessary.
    """
    while (found := pattern.match(text, at)) and found.end() - at >= RUN_MAX:
        at = found.end()
    return found.end() if found else at
