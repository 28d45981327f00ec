"""Run a process that ends the supervised programs after their supervisor was killed.

On Linux the kernel sends each program one SIGTERM when the supervisor dies. A program may ignore this signal,
and the children of the programs do not get it. Such processes would continue to run and hold ports. The
watchdog therefore reads a pipe from the supervisor, which the kernel closes when the supervisor dies. Then
the watchdog sends SIGTERM to the process groups of the programs, and SIGKILL to those that still exist 5 s
later.

This file is also the program of the watchdog process. It runs as ``python -I -S _watchdog.py``, so it imports
only the standard library.
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
    """Start the watchdog process, and send it the ids of the process groups that it watches.

    The supervisor uses this object in a ``with`` block, during which the watchdog process runs. At the end of
    the block, the watchdog process ends the groups that it still watches.
    """

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
        """Let the watchdog ignore the process group with the id *group*, because this group has ended.

        Otherwise the watchdog could end another process group, to which the kernel later gave the same id.
        """
        self._write(-group)

    def _write(self, number: int) -> None:
        assert self._popen.stdin is not None
        with suppress(BrokenPipeError):  # the watchdog was killed; the kernel still signals the parts
            self._popen.stdin.write(f"{number}\n".encode())
            self._popen.stdin.flush()


def main() -> None:
    """Read ids of process groups from standard input until its end, then end the watched groups.

    Each line is a number: the id of a group to watch, or the negative id of a group to watch no longer.
    """
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
    """Send the signal *number* to each of *groups* (process group ids), and return those that exist.

    If *number* is None, no signal is sent, and the function only checks which groups exist. A group that this
    process may not signal counts as one that does not exist.
    """
    alive: set[int] = set()
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number or 0)
            alive.add(group)
    return alive


if __name__ == "__main__":
    main()
