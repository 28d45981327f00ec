"""Reading PGN files as they are in the world."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from backend.workspace.chess._builder import GameRefused
from backend.workspace.chess._comments import TAG_NAME, TEXT_CHARS_MAX
from backend.workspace.chess._headers import HEADERS_MAX, completed, start_board, title_of
from backend.workspace.chess._movetext import Movetext
from backend.workspace.chess._notes import Note, Notes
from backend.workspace.chess._source import FIRST_MOVE, FORUM_NOTE, FORUM_TAG, RESULT, Lead, Source, decoded
from backend.workspace.chess._spelling import result_of
from backend.workspace.chess._tags import Tags, read_tags
from backend.workspace.chess._tree import MoveTree
from backend.workspace.errors import PositionInvalid, quoted

__all__ = ("ReadGame", "SkippedGame", "count_games", "read_games")

_HEADERS_BEGIN: Final = re.compile(rf'[^\]\s]\s*\n[ \t]*\[{TAG_NAME}[ \t]+"')
_ENDS: Final = re.compile(rf"(?<=\s){RESULT}\s|{FIRST_MOVE}")
_PROSE_NOTE: Final = "text between games"


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
    #: What the file says and the chapter does not, or says in another way; in the order of the file.
    notes: tuple[Note, ...] = ()


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
    lead = source.next_game(0)
    number = 0
    while lead.at is not None:
        number += 1
        game, at = _next(source, lead, lead.at, number)
        lead = source.next_game(at)
        if lead.at is None and isinstance(game, ReadGame):
            game = replace(game, notes=game.notes + _behind_the_last(source, lead))
        yield game


def count_games(data: bytes) -> int:
    """About how many games a file has, without reading them.

    Games are counted by where headers begin; in a file without headers, by where games end. A comment that
    looks like either misleads it.
    """
    text = FORUM_TAG.sub("", "\n*\n" + decoded(data))
    return sum(1 for _ in _HEADERS_BEGIN.finditer(text)) or sum(1 for _ in _ENDS.finditer(text)) - 1


def _next(source: Source, lead: Lead, at: int, number: int) -> tuple[ReadGame | SkippedGame, int]:
    """Read the game at *at*; also return where to look for the next one."""
    notes = Notes()
    try:
        headers, tree, end = _game(source, lead, at, notes)
    except GameRefused as refused:
        line = source.line_of(refused.at)
        return SkippedGame(number=number, line=line, reason=refused.reason), source.after_broken(
            refused.resume
        )
    title = title_of(headers) or f"Game {number}"
    line, found = source.line_of(at), notes.at_lines(source)
    return ReadGame(number=number, line=line, title=title, headers=headers, tree=tree, notes=found), end


def _behind_the_last(source: Source, lead: Lead) -> tuple[Note, ...]:
    notes = Notes()
    _note_lead(lead, notes)
    for at, text in lead.comments:
        if text:
            notes.dropped(at, "a comment behind the last game")
    return notes.at_lines(source)


def _note_lead(lead: Lead, notes: Notes) -> None:
    if lead.prose is not None:
        notes.dropped(lead.prose, _PROSE_NOTE)
    if lead.forum is not None:
        notes.normalised(lead.forum, FORUM_NOTE)


def _game(source: Source, lead: Lead, at: int, notes: Notes) -> tuple[dict[str, str], MoveTree, int]:
    tags = read_tags(source.text, at)
    if tags.problem is not None:
        raise GameRefused(*tags.problem, source.after_headers(tags.end))
    try:
        board = start_board(tags.headers)
    except PositionInvalid as error:
        raise GameRefused(str(error), _position_place(tags, at), source.after_headers(tags.end)) from None
    moves = Movetext(source, tags.end, board, notes)
    _note_lead(lead, notes)
    _say_before(moves, [*lead.comments, *tags.comments], notes)
    moves.read()
    try:
        tree = moves.builder.tree()
    except GameRefused as refused:
        raise GameRefused(refused.reason, refused.at, moves.end) from None
    headers = completed(_plain(tags, at, moves, notes), moves.marker)
    if len(headers) > HEADERS_MAX:
        raise GameRefused(f"there are more than {HEADERS_MAX} headers", at, moves.end)
    return headers, tree, moves.end


def _say_before(moves: Movetext, comments: list[tuple[int, str]], notes: Notes) -> None:
    """Put the comments in front of a game before its first move."""
    if sum(len(text) + 1 for _, text in comments) > TEXT_CHARS_MAX:
        notes.dropped(comments[0][0], f"comments before the game: more than {TEXT_CHARS_MAX:,} characters")
        return
    for at, text in comments:
        moves.builder.comment(text, at)


def _plain(tags: Tags, at: int, moves: Movetext, notes: Notes) -> dict[str, str]:
    """Return the headers with a result as PGN writes it, and note what of them is not kept."""
    for place, name in tags.repeated:
        notes.dropped(place, f"the header {name}, which is given again: the last one counts")
    said = tags.headers.get("Result")
    if said is None:
        return tags.headers
    marker = moves.marker
    place, result = tags.places.get("Result", at), result_of(said)
    if result is None:
        if marker != "*" and said not in {"", "?"}:
            notes.dropped(place, f"the header Result {quoted(said)}: the moves end with {marker}")
        return tags.headers
    if result != said:
        notes.normalised(place, f"the result {said} is read as {result}")
    if marker not in {"*", result} and result != "*":
        notes.dropped(moves.marker_at, f"the result {marker} behind the moves: the header says {result}")
    return {**tags.headers, "Result": result}


def _position_place(tags: Tags, at: int) -> int:
    return max(tags.places.get("FEN", at), tags.places.get("Variant", at))
