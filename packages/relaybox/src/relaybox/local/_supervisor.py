"""Supervise programs and local servers: start them in order, print one log, restart them after crashes."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.style import Style
from rich.text import Text

from relaybox.local._parts import Part, PartEnded, ServerPart, Supervised, SupervisedProgram, SupervisedServer
from relaybox.local._restarts import STEADY_S, PartState, PartStatus, restart_pause_s
from relaybox.local._watchdog import Watchdog

#: Seconds in which all parts stop; the exit of the interpreter takes the rest of the promised 10 s.
_STOP_S = 9.4
#: Seconds in which all programs stop, longer than an agent's `TASK_STOP_GRACE_S`. The servers, which stop
#: after the programs, get the rest of ``_STOP_S``.
_PROGRAMS_STOP_S = 8.0
_NAME_WIDTH = 14
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")
_OWN_NAME = "relaybox"

#: Starts a part and returns when the part is READY or DOWN.
Start = Callable[[Part | ServerPart], Awaitable[None]]


class Supervisor:
    """Run parts (programs and servers) until a signal, and restart each part that crashes.

    The supervisor prints every line of the programs, prefixed with the name of the part; the prefix is
    coloured on a terminal. Servers write to their own log files.

    The supervisor logs each crash of a part, and restarts the part after 0.25 s, then after twice as long
    each time, up to 30 s. After three consecutive crashes the part is DOWN, which is logged too; the restarts
    continue.

    SIGINT, SIGTERM and SIGHUP stop all parts within 10 s: first all programs at once, then the servers in the
    reverse order of their start. Ctrl-C in the terminal reaches only the supervisor, not the parts. If the
    supervisor is killed, the watchdog process ends the programs. The servers are then ended by a signal of
    the kernel, which only Linux sends.
    """

    def __init__(
        self,
        console: Console | None = None,
        *,
        on_change: Callable[[tuple[PartStatus, ...]], None] = lambda _parts: None,
    ) -> None:
        """Configure the supervisor; :meth:`run` starts the parts.

        Args:
            console: Where the log is printed; None for standard output.
            on_change: Called with the result of :meth:`parts` after each change of the status of a part.
        """
        self._console = console or Console()
        self._on_change = on_change
        self._parts: list[Supervised] = []
        self._status: dict[str, PartStatus] = {}
        self._tasks: list[asyncio.Future[None]] = []
        self._end: asyncio.Future[int] | None = None

    async def run(self, compose: Callable[[Start], Awaitable[None]]) -> int:
        """Run the parts that *compose* starts, until this process gets a signal. Call it in the main thread.

        Args:
            compose: Coroutine function that starts the parts. Its argument is a function that starts one part
                and returns when this part is READY or DOWN. The environment of a part may therefore depend on
                parts that *compose* started before.

        Returns:
            The exit code: 1 if a part had crashed three or more times in a row when the signal came, else 0.

        Raises:
            LocalError: The first start of a server failed. Other errors of *compose*, and errors of the
                ``ready`` functions of parts, are raised too. All parts are stopped before an error is raised.
        """
        self._end = asyncio.get_running_loop().create_future()
        with Watchdog() as watchdog, self._signals(self._end):
            try:
                self._spawn(compose(lambda part: self._start(part, watchdog)))
                return await self._end
            finally:
                await self._stop()

    def parts(self) -> tuple[PartStatus, ...]:
        """Return the status of every part, in the order of their start."""
        return tuple(self._status.values())

    def write_line(self, name: str, line: str) -> None:
        """Write one line to the log, prefixed with *name*."""
        style = Style(color=_COLOURS[sum(name.encode()) % len(_COLOURS)])
        # from_ansi keeps the colours of the program's output on a terminal, and removes them elsewhere.
        text = Text.assemble((f"{name:<{_NAME_WIDTH}} │ ", style), Text.from_ansi(line))
        self._console.print(text, soft_wrap=True, highlight=False)

    async def _start(self, part: Part | ServerPart, watchdog: Watchdog) -> None:
        supervised: Supervised
        match part:
            case Part():
                supervised = SupervisedProgram(part, self.write_line, watchdog)
            case ServerPart():
                supervised = SupervisedServer(part)
        self._parts.append(supervised)
        self._set_status(PartStatus(name=part.name))
        while self._status[part.name].state is PartState.STARTING:
            await self._start_once(supervised)
        self._spawn(self._supervise(supervised))

    async def _supervise(self, part: Supervised) -> None:
        while True:
            if self._status[part.name].state is PartState.READY:
                await self._handle_crash(part, await self._ended(part))
            await self._start_once(part)

    async def _ended(self, part: Supervised) -> str:
        ending = asyncio.ensure_future(part.ended())
        try:
            await asyncio.wait({ending}, timeout=STEADY_S)
            if not ending.done():
                self._set_status(self._status[part.name].steady())
            return await ending
        finally:
            ending.cancel()

    async def _start_once(self, part: Supervised) -> None:
        """Start *part* and set its status to READY when it is ready.

        If the part ends before it is ready, log the crash and wait for the pause before the next attempt.
        """
        started_s = time.monotonic()
        try:
            await part.start()
        except PartEnded as ended:
            await self._handle_crash(part, str(ended))
            return
        self._set_status(self._status[part.name].ready())
        ready_ms = (time.monotonic() - started_s) * 1000
        self.write_line(part.name, f"ready in {ready_ms:.0f} ms{part.ready_note()}")

    async def _handle_crash(self, part: Supervised, how: str) -> None:
        self.write_line(_OWN_NAME, f"{part.name} {how}. Its last lines:")
        for line in part.last_lines().splitlines() or ["(none)"]:
            self.write_line(_OWN_NAME, f"    {line}")
        self._set_status(self._status[part.name].crashed(how))
        status = self._status[part.name]
        if status.state is PartState.DOWN:
            self.write_line(_OWN_NAME, f"{part.name} is down: it crashed {status.crashes} times in a row.")
        pause_s = restart_pause_s(status.crashes)
        self.write_line(_OWN_NAME, f"Restarting {part.name} in {pause_s:g} s; the other parts keep running.")
        await asyncio.sleep(pause_s)

    def _set_status(self, status: PartStatus) -> None:
        self._status[status.name] = status
        self._on_change(self.parts())

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        task.add_done_callback(self._end_on_error)
        self._tasks.append(task)

    def _end_on_error(self, task: asyncio.Future[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and self._end is not None and not self._end.done():
            self._end.set_exception(error)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        deadline = time.monotonic() + _STOP_S
        programs = [part for part in self._parts if isinstance(part, SupervisedProgram)]
        await asyncio.gather(*(program.stop(_PROGRAMS_STOP_S) for program in programs))
        servers = [part for part in self._parts if isinstance(part, SupervisedServer)]
        while servers:
            share_s = max(0.0, deadline - time.monotonic()) / len(servers)
            await servers.pop().stop(share_s)

    @contextmanager
    def _signals(self, end: asyncio.Future[int]) -> Generator[None]:
        def finish() -> None:
            if not end.done():
                self.write_line(_OWN_NAME, "Stopping all parts")
                failing = [part for part in self.parts() if part.keeps_crashing]
                for part in failing:
                    self.write_line(_OWN_NAME, str(part))
                end.set_result(1 if failing else 0)

        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, finish)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)
