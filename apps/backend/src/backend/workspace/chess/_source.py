"""The text of a PGN file, and where in it games begin."""

import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from dataclasses import dataclass, field
from typing import Final

from backend.workspace.chess._comments import TAG_NAME, unescaped

__all__ = (
    "FIRST_MOVE",
    "FORUM_NOTE",
    "FORUM_TAG",
    "RESULT",
    "RUN_MAX",
    "Lead",
    "Source",
    "decoded",
    "passed_over",
)

#: Bytes that are not UTF-8, as `surrogateescape` marks them, in the Windows code page that Latin-1 files are
#: really written in; where that has no character, in Latin-1.
_LATIN_1: Final = {
    0xDC00 + byte: bytes([byte]).decode("cp1252", "ignore") or chr(byte) for byte in range(0x80, 0x100)
}

_TAG: Final = rf'\[{TAG_NAME}[ \t]+"'
#: The first move of a game, after an empty line. Bounded, so that a file of empty lines is read in one pass.
FIRST_MOVE: Final = r"\n[ \t]{0,20}\n\s{0,20}1[ \t]?\.(?!\.)"
RESULT: Final = r"(?:1[-–]0|0[-–]1|(?:1/2|½)[-–](?:1/2|½)|\*)"
"""A result as files write it."""
FORUM_TAG: Final = re.compile(r"\[/?pgn(?:[= ][^\]\n]{0,80})?\]", re.IGNORECASE)
"""What forums put around a game."""
FORUM_NOTE: Final = "[pgn] and [/pgn] around games are passed over"
_RESULT: Final = rf"(?<=\s){RESULT}(?=\s{{1,80}}(?:1[ \t]?\.|\[)|[ \t]*\n[ \t]*\n|\s*\Z)"
_NEXT: Final = re.compile(
    rf"\n[ \t]*(?={_TAG}|(?i:\[pgn[^\]\n]{{0,80}}\])[ \t]*{_TAG})|{FIRST_MOVE}|{_RESULT}|[{{;]"
)
_TAG_AT_LINE: Final = re.compile(rf"\n[ \t]*{_TAG}")
#: Repetitions of one match: Python remembers each of them until the match ends.
RUN_MAX: Final = 1_000
_BLANK: Final = re.compile(rf"(?:\s++|(?<=\n)%[^\n]*+){{0,{RUN_MAX}}}")
_SQUARE: Final = r"[^\s{}()]{0,9}[a-h][1-8]|[Oo0]-[Oo0]"
_SAN_WORD: Final = r"(?:[NBRQK]?[a-h]?[1-8]?x?[a-h][1-8](?:=?[NBRQ])?|O-O(?:-O)?)[+#]?[!?]{0,2}"
#: What a game begins with: a tag pair, a numbered move, or two moves beside each other.
_GAME: Final = re.compile(
    rf"{_TAG}|\d{{1,3}}[ \t]?\.[.…\s]{{0,9}}(?:{_SQUARE}|--)"
    rf"|{_SAN_WORD}\s+(?:{_SAN_WORD}|{RESULT})(?!\S)"
)


def decoded(data: bytes) -> str:
    r"""The text of a file: UTF-8, UTF-16 by its byte order mark; bytes that are neither are Latin-1.

    Line ends become ``\n``; NUL goes, which PostgreSQL does not store.
    """
    if data.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        text = data.decode("utf-16", "replace")
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            text = data.decode("utf-8", "surrogateescape").translate(_LATIN_1)
    # Files that were put together keep the byte order mark of each.
    return text.replace("\0", "").replace("\ufeff", "").replace("\r\n", "\n").replace("\r", "\n")


@dataclass(slots=True, kw_only=True)
class Lead:
    """What stands before a game, or before the end of the file."""

    #: Where the game begins; null when none does.
    at: int | None = None
    #: Comments, and where each of them stands.
    comments: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    #: Where text that is no comment stands first; null when there is none.
    prose: int | None = None
    #: Where a forum's mark stands first; null when there is none.
    forum: int | None = None


class Source:
    """A file's text, read from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        #: With a line end before the first line, so that each line begins behind one.
        self.text = "\n" + decoded(data)
        self._counted, self._line = 0, 0
        self._close = -1

    def line_of(self, at: int) -> int:
        """The line, from 1, of the character at *at*; cheap where it is near the last one asked for."""
        if at < self._counted:
            return max(self._line - self.text.count("\n", at, self._counted), 1)
        self._line += self.text.count("\n", self._counted, at)
        self._counted = at
        return max(self._line, 1)

    def comment_end(self, at: int) -> tuple[int, bool]:
        """Where the comment that opens at *at* ends, and whether a brace closes it.

        One that is not closed ends where the next game begins, else with the text.
        """
        text = self.text
        if self._close < at:
            # Kept: a text with many braces and none that closes is searched once.
            close = text.find("}", at)
            self._close = close if close >= 0 else len(text)
        tag = _TAG_AT_LINE.search(text, at, self._close) if text.find("\n", at, self._close) >= 0 else None
        if tag is not None:
            return tag.start(), False
        return self._close, self._close < len(text)

    def next_game(self, at: int) -> Lead:
        """Find where the next game begins, from *at* on, and what stands before it."""
        text, lead = self.text, Lead()
        while (at := _blank(text, at)) < len(text):
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
        """Take the comment at *at* into *lead*; return where it ends."""
        text = self.text
        if text[at] == ";":
            end = text.find("\n", at)
            end = len(text) if end < 0 else end
            lead.comments.append((at, text[at + 1 : end].strip()))
            return end
        end, closed = self.comment_end(at)
        if closed:
            lead.comments.append((at, unescaped(text[at + 1 : end]).strip()))
        elif lead.prose is None:
            lead.prose = at
        return end + closed

    def after_headers(self, at: int) -> int:
        """Where to look for the next game when the one whose headers end at *at* is not read.

        Not at its own first move, which stands behind an empty line like that of a game without headers.
        """
        behind = _blank(self.text, at)
        return at if self.text[behind : behind + 1] == "[" else behind

    def after_broken(self, at: int) -> int:
        """Where to look for the next game when the one that *at* is in cannot be read."""
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


def _blank(text: str, at: int) -> int:
    """The first place from *at* on that is neither white space nor in a line of ``%``."""
    return passed_over(_BLANK, text, at)


def passed_over(pattern: re.Pattern[str], text: str, at: int) -> int:
    """Where what *pattern* passes over from *at* on ends; it repeats `RUN_MAX` times at the most."""
    while (found := pattern.match(text, at)) and found.end() - at >= RUN_MAX:
        at = found.end()
    return found.end() if found else at
