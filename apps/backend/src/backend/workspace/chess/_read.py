"""Parse PGN files, including common deviations from the standard."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from backend.workspace.chess._builder import GameRefused
from backend.workspace.chess._comments import TAG_NAME, TEXT_CHARS_MAX
from backend.workspace.chess._headers import HEADERS_MAX, complete_headers, game_title, start_board
from backend.workspace.chess._movetext import Movetext
from backend.workspace.chess._notes import Note, Notes
from backend.workspace.chess._source import (
    FIRST_MOVE,
    FORUM_NOTE,
    FORUM_TAG,
    RESULT,
    Lead,
    Source,
    decode_pgn,
)
from backend.workspace.chess._spelling import parse_result
from backend.workspace.chess._tags import Tags, read_tags
from backend.workspace.chess._tree import MoveTree
from backend.workspace.errors import PositionInvalid, quoted

__all__ = ("ReadGame", "SkippedGame", "count_games", "read_games")

_HEADERS_BEGIN: Final = re.compile(rf'[^\]\s]\s*\n[ \t]*\[{TAG_NAME}[ \t]+"')
_ENDS: Final = re.compile(rf"(?<=\s){RESULT}\s|{FIRST_MOVE}")
_PROSE_NOTE: Final = "text between games"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadGame:
    """A game that was parsed completely."""

    #: Number of the game in the file, from 1; skipped games are counted too.
    number: int
    #: First line of the game in the file, from 1.
    line: int
    #: Title of the game's chapter, at most 200 characters.
    title: str
    #: Tag pairs: the seven tag roster first, then the others in the order of the file; at most 64, with
    #: values of at most 1,000 characters.
    headers: dict[str, str]
    tree: MoveTree
    #: The differences between the file and the chapter, in the order of the file.
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedGame:
    """A game that cannot be parsed completely."""

    #: Number of the game in the file, from 1.
    number: int
    #: Line of the error in the file, from 1.
    line: int
    #: Description of the error, one clause.
    reason: str


def read_games(data: bytes) -> Iterator[ReadGame | SkippedGame]:
    """Parse the games of a file one by one; text between games is ignored.

    Never raises: a game with an illegal move, with an unclosed variation or comment, or over a limit is
    yielded as a SkippedGame, and parsing continues with the next game. The time is linear in the length of
    *data*.
    """
    source = Source(data)
    lead = source.next_game(0)
    number = 0
    while lead.at is not None:
        number += 1
        game, at = _next(source, lead, lead.at, number)
        lead = source.next_game(at)
        if lead.at is None and isinstance(game, ReadGame):
            game = replace(game, notes=game.notes + _notes_after_last_game(source, lead))
        yield game


def count_games(data: bytes) -> int:
    """Estimate the number of games of a file, without parsing them.

    Counts groups of headers; in a file without headers, results. The estimate is wrong if comments contain
    text that looks like headers or results.
    """
    text = FORUM_TAG.sub("", "\n*\n" + decode_pgn(data))
    return sum(1 for _ in _HEADERS_BEGIN.finditer(text)) or sum(1 for _ in _ENDS.finditer(text)) - 1


def _next(source: Source, lead: Lead, at: int, number: int) -> tuple[ReadGame | SkippedGame, int]:
    """Parse the game at the offset *at*; also return the offset from which to search the next game."""
    notes = Notes()
    try:
        headers, tree, end = _game(source, lead, at, notes)
    except GameRefused as error:
        line = source.line_of(error.at)
        return SkippedGame(number=number, line=line, reason=error.reason), source.after_broken(error.resume)
    title = game_title(headers) or f"Game {number}"
    line, found = source.line_of(at), notes.at_lines(source)
    return ReadGame(number=number, line=line, title=title, headers=headers, tree=tree, notes=found), end


def _notes_after_last_game(source: Source, lead: Lead) -> tuple[Note, ...]:
    notes = Notes()
    _note_lead(lead, notes)
    for at, text in lead.comments:
        if text:
            notes.dropped(at, "a comment after the last game")
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
    _add_comments_before(moves, [*lead.comments, *tags.comments], notes)
    moves.read()
    try:
        tree = moves.builder.tree()
    except GameRefused as error:
        raise GameRefused(error.reason, error.at, moves.end) from None
    headers = complete_headers(_plain(tags, at, moves, notes), moves.marker)
    if len(headers) > HEADERS_MAX:
        raise GameRefused(f"the game has more than {HEADERS_MAX} headers", at, moves.end)
    return headers, tree, moves.end


def _add_comments_before(moves: Movetext, comments: list[tuple[int, str]], notes: Notes) -> None:
    """Add the comments before the first move to the annotation of the starting position."""
    if sum(len(text) + 1 for _, text in comments) > TEXT_CHARS_MAX:
        notes.dropped(comments[0][0], f"comments before the game: more than {TEXT_CHARS_MAX:,} characters")
        return
    for at, text in comments:
        moves.builder.comment(text, at)


def _plain(tags: Tags, at: int, moves: Movetext, notes: Notes) -> dict[str, str]:
    """Return the headers with a valid result, and add a note for each dropped header."""
    for place, name in tags.repeated:
        notes.dropped(place, f"the header {name}, which is repeated: the last value is used")
    stated = tags.headers.get("Result")
    if stated is None:
        return tags.headers
    marker = moves.marker
    place, result = tags.offsets.get("Result", at), parse_result(stated)
    if result is None:
        if marker != "*" and stated not in {"", "?"}:
            notes.dropped(place, f"the header Result {quoted(stated)}: the moves end with {marker}")
        return tags.headers
    if result != stated:
        notes.normalised(place, f"the result {stated} is read as {result}")
    if marker not in {"*", result} and result != "*":
        notes.dropped(moves.marker_at, f"the result {marker} after the moves: the header Result is {result}")
    return {**tags.headers, "Result": result}


def _position_place(tags: Tags, at: int) -> int:
    return max(tags.offsets.get("FEN", at), tags.offsets.get("Variant", at))
