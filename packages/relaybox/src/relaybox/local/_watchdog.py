"""Ends what a killed supervisor leaves behind.

The kernel tells a part of its supervisor's death, once and politely: a part that ignores SIGTERM, and
the children of one that does not, would live on and hold ports. So a small process waits at the other end
of a pipe, which the kernel closes with the supervisor. Run as ``python -I -S _watchdog.py``, hence no imports
of ours.
"""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_TERM_S = 5.0
_POLL_S = 0.05
_STOPPING_S = 2.0


class Watchdog:
    """The supervisor's end: knows which process groups are under guard while the context lasts."""

    def __enter__(self) -> "Watchdog":
        self._popen = subprocess.Popen(  # noqa: S603 – argv is ours
            [sys.executable, "-I", "-S", str(Path(__file__))], stdin=subprocess.PIPE, start_new_session=True
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.close()
        self._popen.wait(_TERM_S + _STOPPING_S)

    def watch(self, group: int) -> None:
        """End this process group when the supervisor dies."""
        self._write(group)

    def forget(self, group: int) -> None:
        """Let this one be: it has ended, and its id may come to belong to others."""
        self._write(-group)

    def _write(self, number: int) -> None:
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # the watchdog was killed; parts still get the kernel's signal
            self._popen.stdin.write(f"{number}\n".encode())
            self._popen.stdin.flush()


def main() -> None:
    """Read groups to watch (positive) and to forget (negative) until the pipe closes; end the watched."""
    groups: set[int] = set()
    for line in sys.stdin:
        number = int(line)
        groups = groups | {number} if number > 0 else groups - {-number}
    groups = _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + _TERM_S
    while groups and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        groups = _signal(groups, None)
    _signal(groups, signal.SIGKILL)


def _signal(groups: set[int], number: signal.Signals | None) -> set[int]:
    """Send *number* to the groups, or just look with None; return those that exist."""
    alive: set[int] = set()
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number or 0)
            alive.add(group)
    return alive


if __name__ == "__main__":
    main()
