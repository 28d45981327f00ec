"""Limits on costly work that a process does at a time: in total, and for each holder."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from relaybox.errors import RelayboxError

__all__ = ("Places",)


class Places:
    """Counts the places that are taken in a process; each piece of costly work takes one.

    A holder gets a first place while any is free, and further ones only while fewer than half of all are
    taken. The second half is thus left to holders that have none, so that a few cannot take all places.
    """

    def __init__(self, *, places_max: int, of_one_max: int, refusal: type[RelayboxError]) -> None:
        """Create places that are all free.

        Args:
            places_max: Places of the process.
            of_one_max: Places that one holder may have.
            refusal: The error to raise when no place is given; its class takes no arguments.
        """
        self._places_max = places_max
        self._of_one_max = of_one_max
        self._refusal = refusal
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, holder: str) -> Generator[None]:
        """Take a place for *holder* until the block ends.

        Raises:
            RelayboxError: The refusal: no place is free, or none for this holder.
        """
        if not self._is_free_for(holder):
            raise self._refusal
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
