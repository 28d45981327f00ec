"""Places: how much of something costly a process has under way, in all and for each holder."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from relaybox.errors import RelayboxError

__all__ = ("Places",)


class Places:
    """Counts the places that are taken in a process.

    A holder gets a first place while one is free, and further ones only while fewer than half of all are
    taken. So a few holders cannot take all of them: in the second half each gets one place.
    """

    def __init__(self, *, places_max: int, of_one_max: int, refusal: type[RelayboxError]) -> None:
        """Create places that are all free.

        Args:
            places_max: Places of the process.
            of_one_max: Of them, those of one holder.
            refusal: The error for who gets none; takes no arguments.
        """
        self._places_max = places_max
        self._of_one_max = of_one_max
        self._refusal = refusal
        self._taken: Counter[str] = Counter()

    @contextmanager
    def taken(self, holder: str) -> Generator[None]:
        """Take a place of *holder* for the length of a block.

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
            # Else there would be an entry for each holder of the past.
            self._taken += Counter()

    def _is_free_for(self, holder: str) -> bool:
        taken, own = self._taken.total(), self._taken[holder]
        if own == 0:
            return taken < self._places_max
        return own < self._of_one_max and taken < self._places_max // 2
