"""Parse the PGN files of requests: in threads, before the transaction begins."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from backend.workspace.errors import PgnTooManyGames, StudyFull, require_chess
from backend.workspace.pgn._parsed_file import CHAPTERS_MAX, GAMES_MAX, FileDigest, ParsedFile, encode_file

__all__ = ("LargeFile", "PgnFileReader")

#: Maximum number of games that a request imports; a task imports files with more games.
_GAMES_AT_ONCE_MAX: Final = 200
#: Maximum number of files that are parsed concurrently. More threads would not be faster, because Python runs
#: one thread at a time, and each thread needs the memory of a file.
_FILES_MAX: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeFile:
    """A file with too many games for a request, which a task must import."""

    #: Estimated number of games in the file.
    games: int
    pgn: str


class PgnFileReader:
    """Parses files for the requests of one process.

    *event_bytes_max*: maximum size of an event in bytes; games whose chapter would exceed it are skipped.
    """

    def __init__(self, event_bytes_max: int) -> None:
        self._event_bytes_max = event_bytes_max
        self._threads = ThreadPoolExecutor(_FILES_MAX, thread_name_prefix="pgn")

    async def read(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile | LargeFile]:
        """Parse a file; return its digest and its games.

        Args:
            data: The bytes of the file.
            strict: Refuse the file if a game cannot be imported, instead of skipping the game.

        Returns:
            The digest, and the games; LargeFile instead of the games if a task must import the file, because
            it has more than 200 games.

        Raises:
            ChessNotInstalled: The package ``chess`` is not installed.
            PgnInvalid: No game can be imported; or, if *strict*, at least one game cannot be imported.
            PgnTooManyGames: The file has more games than the maximum of one import.
        """
        require_chess()
        task = partial(self._read, data, strict=strict)
        return await asyncio.get_running_loop().run_in_executor(self._threads, task)

    async def read_for_study(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile]:
        """Return the digest and the games of a file that is imported into one study.

        Raises:
            StudyFull: The file has more games than a study may have chapters.
            ChessNotInstalled, PgnInvalid: As for :meth:`read`.
        """
        require_chess()
        task = partial(self._read_for_study, data, strict=strict)
        return await asyncio.get_running_loop().run_in_executor(self._threads, task)

    def _read(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile | LargeFile]:
        from backend.workspace.chess import count_games
        from backend.workspace.pgn._games import GameReader

        digest, estimate = FileDigest.of(data), count_games(data)
        if estimate > GAMES_MAX:
            raise PgnTooManyGames(GAMES_MAX)
        reader = GameReader(data, strict=strict, event_bytes_max=self._event_bytes_max)
        # The estimate may be too low because of comments; then stop after one game more than the maximum.
        if estimate > _GAMES_AT_ONCE_MAX or reader.read(_GAMES_AT_ONCE_MAX + 1):
            return digest, LargeFile(games=max(estimate, _GAMES_AT_ONCE_MAX), pgn=encode_file(data))
        return digest, reader.file()

    def _read_for_study(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile]:
        from backend.workspace.pgn._games import GameReader

        reader = GameReader(data, strict=strict, event_bytes_max=self._event_bytes_max)
        has_more = True
        while has_more:
            has_more = reader.read(CHAPTERS_MAX + 1)
            if reader.games > CHAPTERS_MAX:
                raise StudyFull(CHAPTERS_MAX)
        return FileDigest.of(data), reader.file()
