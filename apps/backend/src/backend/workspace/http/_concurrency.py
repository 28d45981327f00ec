"""Limits on costly work that a process does at a time: in total, and for each holder."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from relaybox.errors import RelayboxError

__all__ = ("ConcurrencyLimit",)


class ConcurrencyLimit:
    """Counts the places that are taken in a process; each piece of costly work takes one.

    A holder gets a first place while any is free, and further ones only while fewer than half of all are
    taken. The second half is thus left to holders that have none, so that a few cannot take all places.
    """

    def __init__(self, *, total_max: int, per_holder_max: int, error: type[RelayboxError]) -> None:
        """Create places that are all free.

        Args:
            total_max: Places of the process.
            per_holder_max: Places that one holder may have.
            error: The error to raise when no place is given; its class takes no arguments.
        """
        self._places_max = total_max
        self._of_one_max = per_holder_max
        self._error = error
        self._taken: Counter[str] = Counter()

    @contextmanager
    def slot(self, holder: str) -> Generator[None]:
        """Take a place for *holder* until the block ends.

        Raises:
            RelayboxError: The error: no place is free, or none for this holder.
        """
        if not self._is_free_for(holder):
            raise self._error
        self._taken[holder] += 1
        try:
            yield
        finally:
            self._taken[holder] -= 1
            # Removes counts of 0: else each holder of the past would keep an entry.
            self._taken += Counter()

    def _is_free_for(self, holder: str) -> bool:
        taken, own = self._taken.total(), self._taken[holder]
        if own == 0:
            return taken < self._places_max
        return own < self._of_one_max and taken < self._places_max // 2
