"""Several programs and servers as one: started in order, one log, started again, stopped together."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.style import Style
from rich.text import Text

from relaybox.local._errors import PartKeepsCrashing
from relaybox.local._guard import Guard
from relaybox.local._parts import Part, PartEnded, ServerPart, Supervised, SupervisedProgram, SupervisedServer

_RESTARTS_MAX = 5
_WINDOW_S = 60.0
_BACKOFF_S = 0.25
#: Stopping everything is promised within 10 s; the rest is for the interpreter's own end.
_STOP_S = 9.4
#: All programs get this long at once, enough for an agent's `TASK_STOP_GRACE_S`; servers get what is left.
_PROGRAMS_STOP_S = 8.0
_NAME_WIDTH = 14
_COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_red")
_OWN_NAME = "relaybox"

Start = Callable[[Part | ServerPart], Awaitable[None]]


class Supervisor:
    """Runs parts until a signal, or until one of them crashes too often.

    Every line of a part stands in one log behind the part's name, in colour on a terminal only. A part
    that crashes is reported and started again, after 0.25, 0.5, 1, 2 and 4 s; the sixth crash within a
    minute stops everything. SIGINT, SIGTERM and SIGHUP stop all parts within 10 s: the programs at once,
    then the servers in the reverse order of their start. The parts are out of the terminal's reach, and
    end even when the supervisor is SIGKILLed.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._parts: list[Supervised] = []
        self._crashes: dict[str, list[float]] = {}
        self._tasks: list[asyncio.Future[None]] = []
        self._end: asyncio.Future[int] | None = None

    async def run(self, compose: Callable[[Start], Awaitable[None]]) -> int:
        """Run what *compose* starts; return the exit code: 0 by signal, 1 after a crash too many.

        *compose* awaits its argument for each part in turn; it returns when the part is ready, so that the
        next one's environment may depend on it. Must run in the main thread.

        Raises:
            LocalError: a server could not be started for the first time. Whatever *compose* raises is raised.
        """
        self._end = asyncio.get_running_loop().create_future()
        with Guard() as guard, self._signals(self._end):
            try:
                self._spawn(compose(lambda part: self._start(part, guard)))
                return await self._end
            except PartKeepsCrashing as error:
                self.say(_OWN_NAME, str(error))
                return 1
            finally:
                await self._stop()

    def say(self, name: str, line: str) -> None:
        """Write one line to the log, behind *name*."""
        style = Style(color=_COLOURS[sum(name.encode()) % len(_COLOURS)])
        # from_ansi: a part's own colours survive on a terminal and are taken off elsewhere.
        text = Text.assemble((f"{name:<{_NAME_WIDTH}} │ ", style), Text.from_ansi(line))
        self._console.print(text, soft_wrap=True, highlight=False)

    async def _start(self, part: Part | ServerPart, guard: Guard) -> None:
        supervised: Supervised
        match part:
            case Part():
                supervised = SupervisedProgram(part, self.say, guard)
            case ServerPart():
                supervised = SupervisedServer(part)
        self._parts.append(supervised)
        await self._bring_up(supervised)
        self._spawn(self._watch(supervised))

    async def _watch(self, part: Supervised) -> None:
        while True:
            how = await part.ended()
            await self._after_crash(part, how)
            await self._bring_up(part)

    async def _bring_up(self, part: Supervised) -> None:
        while True:
            began = time.monotonic()
            try:
                await part.start()
            except PartEnded as ended:
                await self._after_crash(part, str(ended))
            else:
                ready_ms = (time.monotonic() - began) * 1000
                self.say(part.name, f"ready in {ready_ms:.0f} ms{part.note()}")
                return

    async def _after_crash(self, part: Supervised, how: str) -> None:
        crashes = self._crashes.setdefault(part.name, [])
        crashes.append(time.monotonic())
        self.say(_OWN_NAME, f"{part.name} {how}. Its last lines:")
        for line in part.last_lines().splitlines() or ["(none)"]:
            self.say(_OWN_NAME, f"    {line}")
        pause_s = restart_pause_s(crashes, now=crashes[-1])
        if pause_s is None:
            raise PartKeepsCrashing(part=part.name, crashes=_RESTARTS_MAX + 1, window_s=_WINDOW_S)
        self.say(_OWN_NAME, f"Starting {part.name} again in {pause_s:g} s; Ctrl-C stops everything.")
        await asyncio.sleep(pause_s)

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
                self.say(_OWN_NAME, "Stopping everything")
                end.set_result(0)

        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        for number in numbers:
            loop.add_signal_handler(number, finish)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)


def restart_pause_s(crashes: Sequence[float], *, now: float) -> float | None:
    """Decide how long to wait before the next start: 0.25 s, doubling; None after five starts in a minute.

    *crashes* are the times of all crashes so far, in seconds of the same clock as *now*.
    """
    recent = sum(1 for crash in crashes if now - crash < _WINDOW_S)
    if recent > _RESTARTS_MAX:
        return None
    return _BACKOFF_S * 2 ** max(0, recent - 1)
