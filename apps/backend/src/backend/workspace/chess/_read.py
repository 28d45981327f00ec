"""Reading PGN files as they are in the world."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from backend.workspace.chess._builder import GameRefused
from backend.workspace.chess._comments import TAG_NAME
from backend.workspace.chess._headers import HEADERS_MAX, completed, start_board, title_of
from backend.workspace.chess._movetext import Movetext
from backend.workspace.chess._source import FIRST_MOVE, Source, decoded
from backend.workspace.chess._tags import Tags, read_tags
from backend.workspace.chess._tree import MoveTree
from backend.workspace.errors import PositionInvalid

__all__ = ("ReadGame", "SkippedGame", "count_games", "read_games")

_HEADERS_BEGIN: Final = re.compile(rf'[^\]\s]\s*\n[ \t]*\[{TAG_NAME}[ \t]+"')
_ENDS: Final = re.compile(rf"(?<=\s)(?:1-0|0-1|1/2-1/2|\*)\s|{FIRST_MOVE}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadGame:
    """A game that was read whole."""

    #: Its place in the file, from 1; skipped games count.
    number: int
    #: The line it begins on, from 1.
    line: int
    #: What a chapter of it is called, at most 200 characters.
    title: str
    #: The seven tag roster first, then the others as they stand; values at most 1,000 characters, at most 64.
    headers: dict[str, str]
    tree: MoveTree


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedGame:
    """A game that cannot be read whole."""

    #: Its place in the file, from 1.
    number: int
    #: The line of what is wrong, from 1.
    line: int
    #: What is wrong, in one sentence.
    reason: str


def read_games(data: bytes) -> Iterator[ReadGame | SkippedGame]:
    """Read the games of a file one by one; text between games is passed over.

    Raises nothing: a game with an illegal move, an unclosed variation or comment, or over a limit is given as
    skipped, with the reason, and reading goes on with the next one. Time grows with the length of *data* and
    with nothing else.
    """
    source = Source(data)
    at: int | None = 0
    number = 0
    while (at := source.next_game(at)) is not None:
        number += 1
        line = source.line_of(at)
        try:
            headers, tree, at = _game(source, at)
        except GameRefused as refused:
            yield SkippedGame(number=number, line=source.line_of(refused.at), reason=refused.reason)
            at = source.after_broken(refused.resume)
        else:
            title = title_of(headers) or f"Game {number}"
            yield ReadGame(number=number, line=line, title=title, headers=headers, tree=tree)


def count_games(data: bytes) -> int:
    """About how many games a file has, without reading them.

    Games are counted by where headers begin; in a file without headers, by where games end. A comment that
    looks like either misleads it.
    """
    text = "\n*\n" + decoded(data)
    return sum(1 for _ in _HEADERS_BEGIN.finditer(text)) or sum(1 for _ in _ENDS.finditer(text)) - 1


def _game(source: Source, at: int) -> tuple[dict[str, str], MoveTree, int]:
    tags = read_tags(source.text, at)
    if tags.problem is not None:
        raise GameRefused(*tags.problem, source.after_headers(tags.end))
    try:
        board = start_board(tags.headers)
    except PositionInvalid as error:
        raise GameRefused(str(error), _position_place(tags, at), source.after_headers(tags.end)) from None
    moves = Movetext(source, tags.end, board)
    moves.read()
    try:
        tree = moves.builder.tree()
    except GameRefused as refused:
        raise GameRefused(refused.reason, refused.at, moves.end) from None
    headers = completed(tags.headers, moves.marker)
    if len(headers) > HEADERS_MAX:
        raise GameRefused(f"there are more than {HEADERS_MAX} headers", at, moves.end)
    return headers, tree, moves.end


def _position_place(tags: Tags, at: int) -> int:
    return max(tags.places.get("FEN", at), tags.places.get("Variant", at))
