"""The offset of a partition up to which every message is finished; pure."""

from collections import deque

__all__ = ("OffsetWindow",)


class OffsetWindow:
    """The offsets of one partition that were read, and which of them are finished.

    Invariant: every message before ``position`` is finished or was skipped, so a consumer that starts there
    misses no event. ``position`` never decreases.
    """

    def __init__(self) -> None:
        #: The offset to commit; None until the first message is finished or skipped.
        self.position: int | None = None
        #: Offsets from the oldest unfinished one on, ascending.
        self._window: deque[int] = deque()
        self._finished: set[int] = set()
        self._read_to: int | None = None

    @property
    def finished_above(self) -> int:
        """Number of finished messages above ``position``; after a crash they are read again."""
        return len(self._finished)

    @property
    def first_unfinished(self) -> int | None:
        """The oldest unfinished offset, or the next one to read; None before anything was read."""
        return self._window[0] if self._window else self._read_to

    def add(self, offset: int) -> None:
        """Add the offset of a message that was read; it must be higher than all offsets added before."""
        self._window.append(offset)

    def read_to(self, offset: int) -> None:
        """Record that every message before *offset* was read; those not added were skipped."""
        self._read_to = offset
        self._advance()

    def finish(self, offset: int) -> None:
        """Record that the message at *offset* is finished."""
        self._finished.add(offset)
        self._advance()

    def _advance(self) -> None:
        window, finished = self._window, self._finished
        advanced = False
        while window and window[0] in finished:
            finished.remove(window.popleft())
            advanced = True
        if not window:
            self.position = self._read_to
        elif advanced:
            self.position = window[0]
