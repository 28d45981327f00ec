"""How long a lane waits between two of its transactions."""

from dataclasses import dataclass
from typing import Final

__all__ = ("TransactionPause",)

_FEW_ROWS: Final = 8
#: Between the starts of two transactions of which the first has few rows, so that the second gets more. A
#: transaction costs the brokers the same whatever is in it: at 600 events a second, one for each event
#: keeps the brokers too busy to be quick.
_START_TO_START_S: Final = 0.025
#: Between the end of a transaction and the start of the next. The coordinator answers a commit before it has
#: written the transaction's markers, and rejects the next transaction until it has (CONCURRENT_TRANSACTIONS);
#: librdkafka repeats the request after a fixed 20 ms, and again, while the brokers are busy with rejections.
_END_TO_START_S: Final = 0.008


@dataclass(kw_only=True, slots=True)
class TransactionPause:
    """When the next transaction of one lane may start; the relay ignores it in a backlog."""

    #: By ``time.monotonic()``.
    until_s: float = 0.0

    def note_start(self, now_s: float, *, rows: int) -> None:
        """Note that a transaction of *rows* rows starts."""
        if rows <= _FEW_ROWS:
            self.until_s = now_s + _START_TO_START_S

    def note_end(self, now_s: float) -> None:
        """Note that the transaction has ended."""
        self.until_s = max(self.until_s, now_s + _END_TO_START_S)

    def remaining_s(self, now_s: float) -> float:
        """Return the seconds until the next transaction may start, 0 if it may start now."""
        return max(0.0, self.until_s - now_s)
