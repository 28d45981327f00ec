"""Reading a file's games for a request: in a thread, few at a time, before its transaction begins."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from backend.workspace.errors import PgnTooManyGames, StudyFull, require_chess
from backend.workspace.pgn._parsed_file import CHAPTERS_MAX, GAMES_MAX, FileDigest, ParsedFile, encode_file

__all__ = ("LargeFile", "PgnFileReader")

#: Files of more games are left to a worker (workspace.md, Routes).
_GAMES_AT_ONCE_MAX: Final = 200
#: Threads at a time: Python runs one of them, and each holds a file.
_FILES_MAX: Final = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class LargeFile:
    """A file that a worker will read."""

    #: About how many games it has.
    games: int
    pgn: str


class PgnFileReader:
    """Reads files for the requests of one process. *event_bytes_max* is what an event may take."""

    def __init__(self, event_bytes_max: int) -> None:
        self._event_bytes_max = event_bytes_max
        self._threads = ThreadPoolExecutor(_FILES_MAX, thread_name_prefix="pgn")

    async def read(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile | LargeFile]:
        """The games of a file, or, where they are too many for a request, the file itself.

        Raises:
            ChessNotInstalled: the package ``chess`` is not there.
            PgnInvalid: no game can be imported, or *strict* and one cannot.
            PgnTooManyGames: they are too many for any import.
        """
        require_chess()
        task = partial(self._read, data, strict=strict)
        return await asyncio.get_running_loop().run_in_executor(self._threads, task)

    async def read_for_study(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile]:
        """The games of a file, if one study can hold them.

        Raises:
            StudyFull: it cannot.
            ChessNotInstalled, PgnInvalid: as for :meth:`read`.
        """
        require_chess()
        task = partial(self._read_for_study, data, strict=strict)
        return await asyncio.get_running_loop().run_in_executor(self._threads, task)

    def _read(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile | LargeFile]:
        from backend.workspace.chess import count_games
        from backend.workspace.pgn._games import GameReader

        digest, about = FileDigest.of(data), count_games(data)
        if about > GAMES_MAX:
            raise PgnTooManyGames(GAMES_MAX)
        reader = GameReader(data, strict=strict, event_bytes_max=self._event_bytes_max)
        # Counting is a guess that comments can mislead, also to too few.
        if about > _GAMES_AT_ONCE_MAX or reader.read(_GAMES_AT_ONCE_MAX + 1):
            return digest, LargeFile(games=max(about, _GAMES_AT_ONCE_MAX), pgn=encode_file(data))
        return digest, reader.file()

    def _read_for_study(self, data: bytes, *, strict: bool) -> tuple[FileDigest, ParsedFile]:
        from backend.workspace.pgn._games import GameReader

        reader = GameReader(data, strict=strict, event_bytes_max=self._event_bytes_max)
        goes_on = True
        while goes_on:
            goes_on = reader.read(CHAPTERS_MAX + 1)
            if reader.games > CHAPTERS_MAX:
                raise StudyFull(CHAPTERS_MAX)
        return FileDigest.of(data), reader.file()
