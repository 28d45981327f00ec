"""Run a process that ends the supervised programs after their supervisor was killed.

The kernel sends each program one SIGTERM when the supervisor dies. A program that ignores this signal, and
the children of programs, would continue to run and hold ports. The watchdog reads a pipe that the kernel
closes when the supervisor dies, and then ends the process groups of the programs. The watchdog runs as
``python -I -S _watchdog.py``, so it imports only the standard library.
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
    """The supervisor's handle of the watchdog process, which runs during a ``with`` block."""

    def __enter__(self) -> "Watchdog":
        self._popen = subprocess.Popen(  # noqa: S603 – argv of this package
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
        """Let the watchdog end the process group *group* when the supervisor dies."""
        self._write(group)

    def unwatch(self, group: int) -> None:
        """Do not end the process group *group* any more: it has ended, and its id may be reused."""
        self._write(-group)

    def _write(self, number: int) -> None:
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # the watchdog was killed; the kernel still signals the parts
            self._popen.stdin.write(f"{number}\n".encode())
            self._popen.stdin.flush()


def main() -> None:
    """Read ids of process groups, positive to watch and negative to unwatch; end the watched ones at EOF."""
    groups: set[int] = set()
    for line in sys.stdin:
        number = int(line)
        groups = groups | {number} if number > 0 else groups - {-number}
    groups = _signal(groups, signal.SIGTERM)
    deadline = time.monotonic() + _TERM_S
    while groups and time.monotonic() < deadline:
        time.sleep(_POLL_S)  # noqa: TID251 – this process has no event loop
        groups = _signal(groups, None)
    _signal(groups, signal.SIGKILL)


def _signal(groups: set[int], number: signal.Signals | None) -> set[int]:
    """Send the signal *number* to the process groups, or none if None; return the groups that exist."""
    alive: set[int] = set()
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number or 0)
            alive.add(group)
    return alive


if __name__ == "__main__":
    main()
