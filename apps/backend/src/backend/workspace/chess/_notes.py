"""What a file says and a chapter does not, or says in another way: noted while a game is read."""

from dataclasses import dataclass
from typing import Final

from backend.workspace.chess._source import Source

__all__ = ("Note", "Notes")

#: Different notes of one game; the file is odd enough by then.
_NOTES_MAX: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One difference between a file's game and the chapter read from it."""

    #: The line where it occurs first, from 1.
    line: int
    #: What differs, in one clause.
    note: str
    #: How often it occurs in the game.
    count: int
    #: Whether the chapter lacks something that the file has; false where it is only written differently.
    dropped: bool


class Notes:
    """Collects the notes of one game; equal notes are counted."""

    def __init__(self) -> None:
        #: By kind and text: where it occurs first, and how often.
        self._found: dict[tuple[bool, str], tuple[int, int]] = {}

    def dropped(self, at: int, note: str) -> None:
        """Note that the chapter lacks what stands at *at* in the file."""
        self._add(at, note, dropped=True)

    def normalised(self, at: int, note: str) -> None:
        """Note that what stands at *at* in the file is read as something else."""
        self._add(at, note, dropped=False)

    def at_lines(self, source: Source) -> tuple[Note, ...]:
        """Return the notes in the order of the file."""
        by_place = sorted(self._found.items(), key=lambda found: found[1][0])
        return tuple(
            Note(line=source.line_of(at), note=note, count=count, dropped=dropped)
            for (dropped, note), (at, count) in by_place
        )

    def _add(self, at: int, note: str, *, dropped: bool) -> None:
        key = dropped, note
        first, count = self._found.get(key, (at, 0))
        if count or len(self._found) < _NOTES_MAX:
            self._found[key] = min(first, at), count + 1
