"""Let a service announce its steps, so that a test waits for a step and not for a fixed time.

A service announces each step by a signal. Each service has its own enum of signals. A test sets a listener,
which is called with each signal; in production there is no listener.
"""

from collections import Counter
from collections.abc import Callable
from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

__all__ = ("OnSignal", "Signal", "SignalEmitter")


class Signal(StrEnum):
    """Base class of enums; each enum lists the signals of one service."""


S = TypeVar("S", bound=Signal)
OnSignal: TypeAlias = Callable[[S], None]
"""Listener that is called with each signal of a service; must not block."""


class SignalEmitter(Generic[S]):
    """Count the signals of one service, and pass each signal to the listener, if there is one."""

    def __init__(self, on_signal: OnSignal[S] | None = None) -> None:
        self._on_signal = on_signal
        self.counts: Counter[S] = Counter()

    def emit(self, signal: S) -> None:
        """Count *signal* and call the listener, if there is one."""
        self.counts[signal] += 1
        if self._on_signal is not None:
            self._on_signal(signal)
