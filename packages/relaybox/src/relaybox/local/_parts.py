"""What a supervisor looks after: programs, whose output it relays, and servers with their own logs."""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from relaybox.local._errors import LocalError
from relaybox.local._process import DetachedProcess, tail
from relaybox.local._watchdog import Watchdog

_LAST_LINES_MAX = 10
_CHUNK_BYTES = 65_536
#: A line longer than this is relayed in pieces.
_LINE_BYTES_MAX = 65_536
_OUTPUT_ENDS_S = 1.0

WriteLine = Callable[[str, str], None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program under a supervisor; it must stay in the foreground and end on SIGTERM."""

    #: Stands before each of its lines.
    name: str
    argv: Sequence[str]
    #: The whole environment, nothing is inherited.
    env: Mapping[str, str]
    #: Returns once the part can be used; None counts it as ready at once.
    ready: Callable[[], Awaitable[None]] | None = None
    #: A part that is not ready in that many seconds counts as crashed.
    ready_s: float = 120.0


class Server(Protocol):
    """What :class:`LocalPostgres` and :class:`LocalKafka` have in common."""

    @property
    def log(self) -> Path:
        """The file it writes its log to."""
        ...

    @property
    def place(self) -> Path:
        """The directory its data is in."""
        ...

    async def start(self) -> None:
        """Return when the server can be used."""
        ...

    async def stop(self) -> None:
        """Return when it has ended."""
        ...

    def kill(self) -> None:
        """SIGKILL what is left of it; harmless if nothing is."""
        ...

    async def wait(self) -> int:
        """Return its exit code once it has ended by itself."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServerPart:
    """A local server under a supervisor."""

    name: str
    server: Server


class PartEnded(Exception):
    """Raised when a part ended, or had to be ended, before it was ready; the message says how."""


class Supervised(Protocol):
    """A part as the supervisor sees it, whatever is behind it."""

    name: str

    async def start(self) -> None:
        """Return when the part is ready; raises PartEnded."""
        ...

    async def ended(self) -> str:
        """Return how it ended, once it has."""
        ...

    async def stop(self, within_s: float) -> None:
        """End it, by force after *within_s* seconds."""
        ...

    def last_lines(self) -> str:
        """What it said last."""
        ...

    def note(self) -> str:
        """What a newcomer should know once it is ready; may be empty."""
        ...


class SupervisedProgram:
    """A :class:`Part` with its process; its lines go to *tell* as they come."""

    def __init__(self, part: Part, tell: WriteLine, watchdog: Watchdog) -> None:
        self.name = part.name
        self._watchdog = watchdog
        self._part = part
        self._tell = tell
        self._lines: deque[str] = deque(maxlen=_LAST_LINES_MAX)
        self._process: DetachedProcess | None = None
        self._output_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the program and wait until it is ready.

        Raises:
            PartEnded: it ended first, or was not ready in time.
        """
        self._lines.clear()
        reader, writer = os.pipe()
        try:
            self._process = DetachedProcess(
                self._part.argv,
                output=writer,
                env=self._part.env,
                cwd=Path.cwd(),
                parent_death=signal.SIGTERM,
            )
        finally:
            os.close(writer)
        self._watchdog.watch(self._process.pid)
        self._output_task = asyncio.create_task(self._relay_output(reader))
        if self._part.ready is not None:
            await self._until_ready(self._part.ready)

    async def ended(self) -> str:
        """Return how the program ended, once it has and its last lines were relayed."""
        assert self._process is not None
        exit_code = await self._process.wait()
        await self._end_children()
        return describe_exit(exit_code)

    async def stop(self, within_s: float) -> None:
        """SIGTERM, and SIGKILL for what is left of it after *within_s* seconds."""
        if self._process is not None:
            await self._process.stop(signal.SIGTERM, stop_s=within_s)
            await self._end_children()

    def last_lines(self) -> str:
        """Return its last 10 lines."""
        return "\n".join(self._lines)

    def note(self) -> str:
        """Say nothing: the program speaks for itself."""
        return ""

    async def _until_ready(self, ready: Callable[[], Awaitable[None]]) -> None:
        waiting = asyncio.ensure_future(ready())
        ending = asyncio.ensure_future(self.ended())
        try:
            done, _ = await asyncio.wait(
                {waiting, ending}, timeout=self._part.ready_s, return_when=asyncio.FIRST_COMPLETED
            )
            if ending in done:
                raise PartEnded(ending.result())
            if waiting not in done:
                await self.stop(0)
                raise PartEnded(f"was not ready within {self._part.ready_s:g} s")
            waiting.result()
        finally:
            waiting.cancel()
            ending.cancel()

    async def _end_children(self) -> None:
        """End processes the program left behind: they hold its ports, and its output open."""
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._watchdog.forget(self._process.pid)
        if self._output_task is not None:
            await asyncio.wait({self._output_task}, timeout=_OUTPUT_ENDS_S)
            self._output_task.cancel()

    async def _relay_output(self, reader: int) -> None:
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(reader, "rb")
        )
        rest = b""
        try:
            while chunk := await stream.read(_CHUNK_BYTES):
                *lines, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LINE_BYTES_MAX:
                    lines, rest = [*lines, rest], b""
                for line in lines:
                    self._relay_line(line)
            if rest:
                self._relay_line(rest)
        finally:
            transport.close()

    def _relay_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._lines.append(text)
        self._tell(self.name, text)


class SupervisedServer:
    """A :class:`ServerPart`; the first start's errors are the caller's, later ones count as crashes."""

    def __init__(self, part: ServerPart) -> None:
        self.name = part.name
        self._server = part.server
        self._was_ready = False

    async def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises:
            LocalError: the very first start failed.
            PartEnded: a later one failed.
        """
        try:
            await self._server.start()
        except LocalError as error:
            if not self._was_ready:
                raise
            raise PartEnded(f"could not be started again: {error}") from error
        self._was_ready = True

    async def ended(self) -> str:
        """Return how the server ended, once it has."""
        exit_code = await self._server.wait()
        self._server.kill()
        return describe_exit(exit_code)

    async def stop(self, within_s: float) -> None:
        """Stop the server in order, and SIGKILL it after *within_s* seconds."""
        try:
            await asyncio.wait_for(self._server.stop(), within_s)
        except TimeoutError:
            self._server.kill()

    def last_lines(self) -> str:
        """Return the end of the server's log."""
        return tail(self._server.log, lines_max=_LAST_LINES_MAX)

    def note(self) -> str:
        """Say where the data is: for root that may be another directory than the one asked for."""
        return f", data in {self._server.place}"


def describe_exit(exit_code: int) -> str:
    """Say how a process ended, with the signal's name if one ended it."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was ended by {signal.Signals(-exit_code).name} (exit code {exit_code})"
