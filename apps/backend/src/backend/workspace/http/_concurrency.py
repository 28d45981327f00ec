"""Limit the concurrent expensive operations of a process, such as uploads: in total, and per user or link."""

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager

from relaybox.errors import RelayboxError

__all__ = ("ConcurrencyLimit",)


class ConcurrencyLimit:
    """Limits concurrent operations: each operation reserves a slot, or is refused.

    Each slot has a holder, such as a user or a link. A holder without a slot gets one if any slot is free. A
    holder with a slot gets another one only if less than half of all slots are used, and the holder has not
    reached its own maximum. So a few holders cannot use all slots.
    """

    def __init__(self, *, total_max: int, per_holder_max: int, error: type[RelayboxError]) -> None:
        """Create a limit whose slots are all free.

        Args:
            total_max: Slots of the process.
            per_holder_max: Slots that one holder may use.
            error: The error to raise when no slot is free; its class takes no arguments.
        """
        self._total_max = total_max
        self._per_holder_max = per_holder_max
        self._error = error
        self._taken: Counter[str] = Counter()

    @contextmanager
    def slot(self, holder: str) -> Generator[None]:
        """Reserve a slot for *holder* until the block ends.

        Raises:
            RelayboxError: No slot is free for this holder; the error given at construction.
        """
        if not self._is_free_for(holder):
            raise self._error
        self._taken[holder] += 1
        try:
            yield
        finally:
            self._taken[holder] -= 1
            # Remove counts of 0; otherwise each past holder would keep an entry.
            self._taken += Counter()

    def _is_free_for(self, holder: str) -> bool:
        taken, own = self._taken.total(), self._taken[holder]
        if own == 0:
            return taken < self._total_max
        return own < self._per_holder_max and taken < self._total_max // 2
