"""Relays and consumers as processes of ``relaybox``, restarted when they end, as by a supervisor."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from relaybox.local import free_port
from relaybox.local._process import DetachedProcess

from tests.faults.chaos._journal import Timeline

#: SIGTERM ends a relay (G27) and a consumer within 10 s; the rest allows for a busy machine.
STOP_S: Final = 15.0
_RESTART_S: Final = 1.0
#: A process that has just started may end by the signal itself; so may one that still imports, which takes
#: longer on a busy machine and logs nothing.
_STARTING_S: Final = 10.0


class ServiceSlot:
    """Successive processes of one service with the same settings; at most one runs."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        environment: Mapping[str, str],
        log: Path,
        timeline: Timeline,
    ) -> None:
        """Describe the slot of ``relaybox`` with *arguments*; nothing runs before :meth:`start`."""
        self.name = name
        #: Number of unrequested exits by exit code.
        self.unexpected_exits: Counter[int] = Counter()
        #: Descriptions of stops without exit code 0 in time.
        self.failed_stops: list[str] = []
        self._arguments = tuple(arguments)
        self._environment = {**environment, "HEALTH_PORT": str(free_port()), "PATH": os.environ["PATH"]}
        self._log = log
        self._timeline = timeline
        self._process: DetachedProcess | None = None
        self._watch: asyncio.Task[None] | None = None
        self._frozen = False
        self._started_s = 0.0
        self._log_bytes = 0

    @property
    def is_running(self) -> bool:
        """Return whether the process runs and is not frozen."""
        return self._process is not None and not self._frozen

    def start(self) -> None:
        """Start a process unless one runs."""
        if self._process is not None:
            return
        with self._log.open("ab") as output:
            self._log_bytes = output.tell()
            self._process = DetachedProcess(
                [str(Path(sys.executable).with_name("relaybox")), *self._arguments],
                output=output.fileno(),
                env=self._environment,
                cwd=Path.cwd(),
                parent_death=signal.SIGKILL,
            )
        self._frozen = False
        self._started_s = time.monotonic()
        self._timeline.note(f"{self.name} started, pid {self._process.pid}")
        self._watch = asyncio.create_task(self._restart_when_ended(self._process))

    def kill(self) -> None:
        """SIGKILL the process; no restart before :meth:`start`."""
        process = self._release()
        if process is not None:
            process.kill()

    def freeze(self) -> None:
        """SIGSTOP the process."""
        assert self._process is not None
        self._process.pause()
        self._frozen = True

    def resume(self) -> None:
        """SIGCONT the process if it is frozen."""
        if self._process is not None and self._frozen:
            self._process.signal_tree(signal.SIGCONT)
            self._frozen = False

    async def stop(self) -> None:
        """Stop the process by SIGTERM; record an exit other than 0 in time (G27)."""
        process = self._release()
        if process is None:
            return
        asked_s = time.monotonic()
        await process.stop(signal.SIGTERM, stop_s=STOP_S)
        silent = self._log.stat().st_size == self._log_bytes
        starting = silent or asked_s - self._started_s < _STARTING_S
        if process.exit_code not in ({0, -signal.SIGTERM} if starting else {0}):
            self.failed_stops.append(
                f"{self.name}: exit code {process.exit_code} {time.monotonic() - asked_s:.1f} s after SIGTERM"
            )
            self._timeline.note(self.failed_stops[-1])

    def _release(self) -> DetachedProcess | None:
        """Return the process and stop restarting it."""
        process, self._process = self._process, None
        if self._watch is not None:
            self._watch.cancel()
        return process

    async def _restart_when_ended(self, process: DetachedProcess) -> None:
        exit_code = await process.wait()
        self._process = None
        self.unexpected_exits[exit_code] += 1
        self._timeline.note(f"{self.name} ended by itself with exit code {exit_code}")
        await asyncio.sleep(_RESTART_S)
        self.start()
