"""A PGN file on its way into studies, once its games are read."""

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
"""Chapters of one study (workspace.md, Objects)."""
GAMES_MAX: Final = 10_000
"""Games of one import, left-out ones included."""
REPORTED_MAX: Final = 100
"""Left-out games, and notes of a kind, that a report, an event or a refusal names; all are counted."""
#: The fastest: what takes 0.1 s for 20 MiB, and is a third as long.
_COMPRESSION: Final = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Game:
    """A game that will be a chapter."""

    #: Its place in the file, from 1.
    number: int
    title: str
    headers: dict[str, str]
    #: JSON of its tree: an eighth of what the same takes as objects.
    moves: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class NoteList:
    """Notes on the games of a file: all are counted, the first ones are held."""

    count: int = 0
    first: Sequence[PgnNote] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedFile:
    """The games of a file, at least one, and what was left out, both in its order."""

    games: Sequence[Game]
    skipped: Sequence[SkippedPgn]
    #: What the games say and the chapters do not.
    dropped: NoteList = field(default_factory=NoteList)
    #: What was read as something else, without loss.
    normalised: NoteList = field(default_factory=NoteList)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileDigest:
    """What the inbox keeps of a file: enough to know it again, and nothing of what it says."""

    size_bytes: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Self:
        """The mark of a file."""
        return cls(size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest())

    def payload(self) -> dict[str, Any]:
        """As JSON."""
        return {"size_bytes": self.size_bytes, "sha256": self.sha256}


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """What one study gets of a file; every left-out game is told in one of them."""

    #: Place of its first and last game among those that are imported, from 1.
    first: int
    last: int
    games: Sequence[Game]
    skipped: Sequence[SkippedPgn]


def split_into_studies(file: ParsedFile) -> list[Part]:
    """The studies that hold a file, 64 chapters each but the last; at least one."""
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
    """A file as text that JSON can hold."""
    return base64.b64encode(zlib.compress(data, _COMPRESSION)).decode()


def decode_file(text: str) -> bytes:
    """The file that :func:`packed` was given."""
    return zlib.decompress(base64.b64decode(text))
