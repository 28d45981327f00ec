"""Signals: the steps that a service announces, so that tests wait for a step instead of for time.

Each service has its own enum of signals. Nothing listens to them in production.
"""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

__all__ = ("OnSignal", "Signal", "SignalEmitter")


class Signal(StrEnum):
    """A step of a service; the base class of each service's signals."""


S = TypeVar("S", bound=Signal)
OnSignal: TypeAlias = Callable[[S], None]
"""Receives each signal of a service; must return at once."""


class SignalEmitter(Generic[S]):
    """Count the signals of one service, and pass each of them to its listener."""

    def __init__(self, on_signal: OnSignal[S] | None = None) -> None:
        self._on_signal = on_signal
        self.counts: Counter[S] = Counter()

    def emit(self, signal: S) -> None:
        """Count *signal* and call the listener, if there is one."""
        self.counts[signal] += 1
        if self._on_signal is not None:
            self._on_signal(signal)
