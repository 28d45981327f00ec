"""Collect notes on the differences between a game in a file and the chapter that is created from the game."""

from dataclasses import dataclass
from typing import Final

from backend.workspace.chess._source import Source

__all__ = ("Note", "Notes")

#: Maximum number of different notes on one game; further notes are ignored.
_NOTES_MAX: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One difference between a game in a file and the chapter that is created from the game."""

    #: The first line with the difference, from 1.
    line: int
    #: The difference, in one clause.
    note: str
    #: The number of occurrences in the game.
    count: int
    #: Whether the chapter lacks content of the file; False if the content is only written differently.
    dropped: bool


class Notes:
    """Collects the notes on one game; equal notes are counted."""

    def __init__(self) -> None:
        #: By ``dropped`` and text of the note: the first offset, and the number of occurrences.
        self._found: dict[tuple[bool, str], tuple[int, int]] = {}

    def dropped(self, at: int, note: str) -> None:
        """Add the note that the chapter lacks the content at the offset *at* of the file."""
        self._add(at, note, dropped=True)

    def normalised(self, at: int, note: str) -> None:
        """Add the note that the chapter has the content at the offset *at* in another notation."""
        self._add(at, note, dropped=False)

    def at_lines(self, source: Source) -> tuple[Note, ...]:
        """Return the notes in the order of the file, with lines of *source* instead of offsets."""
        by_offset = sorted(self._found.items(), key=lambda found: found[1][0])
        return tuple(
            Note(line=source.line_of(at), note=note, count=count, dropped=dropped)
            for (dropped, note), (at, count) in by_offset
        )

    def _add(self, at: int, note: str, *, dropped: bool) -> None:
        key = dropped, note
        first, count = self._found.get(key, (at, 0))
        if count or len(self._found) < _NOTES_MAX:
            self._found[key] = min(first, at), count + 1
