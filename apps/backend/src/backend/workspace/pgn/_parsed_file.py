"""The games of a parsed PGN file, and their division into studies."""

import base64
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

from shared_types.workspace_pgn_api import PgnNote, SkippedPgn

__all__ = (
    "CHAPTERS_MAX",
    "GAMES_MAX",
    "REPORTED_MAX",
    "FileDigest",
    "Game",
    "NoteList",
    "ParsedFile",
    "Part",
    "decode_file",
    "encode_file",
    "split_into_studies",
)

CHAPTERS_MAX: Final = 64
"""Maximum number of chapters in one study."""
GAMES_MAX: Final = 10_000
"""Maximum number of games in one import, including skipped games."""
REPORTED_MAX: Final = 100
"""Maximum number of listed skipped games, and of listed notes of each kind; counts include the others."""
#: The fastest level of zlib: compresses 20 MiB in 0.1 s to a third of the size.
_COMPRESSION: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """A game to import as a chapter."""

    #: Number of the game in the file, from 1.
    number: int
    title: str
    headers: dict[str, str]
    #: JSON of the tree of moves; as objects it would take eight times the memory.
    moves: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class NoteList:
    """Notes on the games of a file: the number of all notes, and the first of them."""

    count: int = 0
    first: Sequence[PgnNote] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedFile:
    """The games of a file, at least one, and the skipped games, both in the order of the file."""

    games: Sequence[Game]
    skipped: Sequence[SkippedPgn]
    #: Notes on content that the chapters lack.
    dropped: NoteList = field(default_factory=NoteList)
    #: Notes on content that the chapters have in another notation.
    normalised: NoteList = field(default_factory=NoteList)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """Size and hash of a file, which are stored in the command instead of the content."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Return the digest of a file."""
        return cls(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def payload(self) -> dict[str, Any]:
        """Return the size and the hash as fields of a command's payload."""
        return {"size_bytes": self.size_bytes, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """The games of a file for one study, and the skipped games that are between them in the file."""

    #: Number of the part's first game among the imported games of the file, from 1.
    first: int
    #: Number of the part's last game among the imported games of the file.
    last: int
    games: Sequence[Game]
    skipped: Sequence[SkippedPgn]


def split_into_studies(file: ParsedFile) -> list[Part]:
    """Divide the games of a file into studies of 64 chapters; the last study may have fewer."""
    starts = range(0, len(file.games), CHAPTERS_MAX)
    numbers = [0, *(file.games[start].number for start in starts[1:]), GAMES_MAX + 1]
    return [
        Part(
            first=start + 1,
            last=min(start + CHAPTERS_MAX, len(file.games)),
            games=file.games[start : start + CHAPTERS_MAX],
            skipped=list(_between(file.skipped, numbers[place], numbers[place + 1])),
        )
        for place, start in enumerate(starts)
    ]


def _between(skipped: Sequence[SkippedPgn], first: int, end: int) -> Iterator[SkippedPgn]:
    return (one for one in skipped if first <= one.game < end)


def encode_file(data: bytes) -> str:
    """Compress a file and encode it as text for a JSON document."""
    return base64.b64encode(zlib.compress(data, _COMPRESSION)).decode()


def decode_file(text: str) -> bytes:
    """Return the file from the result of :func:`encode_file`."""
    return zlib.decompress(base64.b64decode(text))
