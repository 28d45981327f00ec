"""Parse the games of a file in batches, and encode each as a chapter; needs the package ``chess``."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from pydantic_core import to_json
from shared_types.workspace_pgn_api import PgnNote, SkippedPgn

from backend.workspace.chess import ReadGame, SkippedGame, read_games
from backend.workspace.errors import PgnInvalid, PgnTooManyGames
from backend.workspace.pgn._parsed_file import GAMES_MAX, REPORTED_MAX, Game, NoteList, ParsedFile

__all__ = ("GameReader",)

#: Bytes reserved in an event for everything except tag pairs and moves: envelope, ids and Kafka headers.
_ENVELOPE_BYTES: Final = 12_000


class GameReader:
    """Parses a file batch by batch; not thread-safe.

    data: the file.
    strict: refuse the file at the first game that cannot be imported, instead of skipping the game.
    event_bytes_max: maximum size of an event in bytes; larger chapters are skipped.
    """

    def __init__(self, data: bytes, *, strict: bool, event_bytes_max: int) -> None:
        self._games = read_games(data)
        self._strict = strict
        self._game_bytes_max = event_bytes_max - _ENVELOPE_BYTES
        self._read: list[Game] = []
        self._skipped: list[SkippedPgn] = []
        #: The notes about dropped content (True), and those about normalised content (False).
        self._notes: dict[bool, list[PgnNote]] = {True: [], False: []}
        self._notes_count = {True: 0, False: 0}

    @property
    def games(self) -> int:
        """Return the number of games that were read and not skipped."""
        return len(self._read)

    @property
    def seen(self) -> int:
        """Return the number of games that were read, including skipped games."""
        return len(self._read) + len(self._skipped)

    def read(self, games_max: int) -> bool:
        """Read up to *games_max* more games, including skipped games; return False if the file had fewer.

        Raises:
            PgnInvalid: A game cannot be imported, and the reader is strict.
            PgnTooManyGames: More than `GAMES_MAX` games were read.
        """
        before = self.seen
        for one in self._next(games_max):
            if isinstance(one, Game):
                self._read.append(one)
            elif self._strict:
                raise PgnInvalid([one], 1)
            else:
                self._skipped.append(one)
        if self.seen > GAMES_MAX:
            raise PgnTooManyGames(GAMES_MAX)
        return self.seen - before == games_max

    def file(self) -> ParsedFile:
        """Return the games that were read.

        Raises:
            PgnInvalid: No game can be imported.
        """
        if not self._read and self._skipped:
            raise PgnInvalid(self._skipped[:REPORTED_MAX], len(self._skipped))
        if not self._read:
            raise PgnInvalid([], 0)
        dropped, normalised = (
            NoteList(count=self._notes_count[kind], first=self._notes[kind]) for kind in (True, False)
        )
        return ParsedFile(games=self._read, skipped=self._skipped, dropped=dropped, normalised=normalised)

    def _next(self, games_max: int) -> Iterator[Game | SkippedPgn]:
        for one in islice(self._games, games_max):
            yield self._to_game(one) if isinstance(one, ReadGame) else _skipped_game(one)

    def _to_game(self, read: ReadGame) -> Game | SkippedPgn:
        moves = to_json(read.tree.document())
        size = _stored_bytes(moves) + _stored_bytes(to_json(read.headers)) + len(to_json(read.title))
        if size > self._game_bytes_max:
            reason = (
                f"the game takes {size:,} bytes, and a chapter has at most {self._game_bytes_max:,}; "
                "split its variations among several games"
            )
            return SkippedPgn(game=read.number, line=read.line, reason=reason)
        self._note(read)
        return Game(number=read.number, title=read.title, headers=read.headers, moves=moves)

    def _note(self, read: ReadGame) -> None:
        for one in read.notes:
            self._notes_count[one.dropped] += 1
            held = self._notes[one.dropped]
            if len(held) < REPORTED_MAX:
                held.append(PgnNote(game=read.number, line=one.line, note=one.note, count=one.count))


def _skipped_game(game: SkippedGame) -> SkippedPgn:
    return SkippedPgn(game=game.number, line=game.line, reason=game.reason)


def _stored_bytes(json: bytes) -> int:
    """Return an upper bound of the length of *json* as the text of a JSONB value.

    PostgreSQL writes a space after each comma and each colon between values.
    """
    return len(json) + json.count(b",") + json.count(b":")
