"""Define what a supervisor runs: programs and local servers.

The supervisor prints the output of the programs. The servers write to their own log files.
"""

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
#: A longer line is printed in pieces of at most twice this size.
_LINE_BYTES_MAX = 65_536
_OUTPUT_ENDS_S = 1.0

WriteLine = Callable[[str, str], None]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A program that a supervisor runs; the program must stay in the foreground and end on SIGTERM."""

    #: Prefix of the program's lines in the log.
    name: str
    argv: Sequence[str]
    #: All environment variables of the program; none is inherited.
    env: Mapping[str, str]
    #: Function that returns when the program is ready; None if the program is ready immediately.
    ready: Callable[[], Awaitable[None]] | None = None
    #: Seconds after which a program that is not ready is stopped and counts as crashed.
    ready_s: float = 120.0


class Server(Protocol):
    """The methods of :class:`LocalPostgres` and :class:`LocalKafka` that a supervisor calls."""

    @property
    def log(self) -> Path:
        """The log file."""
        ...

    @property
    def resolved_data_dir(self) -> Path:
        """The directory with the server's data."""
        ...

    async def start(self) -> None:
        """Start the server and return when it is ready."""
        ...

    async def stop(self) -> None:
        """Stop the server and return when it has ended."""
        ...

    def kill(self) -> None:
        """Send SIGKILL to the server's processes, if there are any."""
        ...

    async def wait(self) -> int:
        """Wait until the server has ended and return its exit code."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServerPart:
    """A local server that a supervisor runs."""

    name: str
    server: Server


class PartEnded(Exception):
    """Raised when a part ended before it was ready, was not ready in time, or could not be started again.

    The message describes what happened to the part, such as "ended with exit code 1".
    """


class Supervised(Protocol):
    """The methods that a supervisor calls to run one part: start, wait for the exit, and stop its process."""

    name: str

    async def start(self) -> None:
        """Start the part and return when it is ready.

        Raises:
            PartEnded: The part ended before it was ready, or was not ready in time.
        """
        ...

    async def ended(self) -> str:
        """Wait until the part has ended, and return a description such as "ended with exit code 1"."""
        ...

    async def stop(self, within_s: float) -> None:
        """Stop the part; send SIGKILL if it has not ended after *within_s* seconds."""
        ...

    def last_lines(self) -> str:
        """Return the last lines of the part's output or log file."""
        ...

    def ready_note(self) -> str:
        """Return text to append to the log line "ready in … ms"; may be empty."""
        ...


class SupervisedProgram:
    """A :class:`Part` with its process.

    Each line that the program prints is passed to *write_line*, with the name of the part. The *watchdog*
    ends the program if the supervisor dies.
    """

    def __init__(self, part: Part, write_line: WriteLine, watchdog: Watchdog) -> None:
        self.name = part.name
        self._watchdog = watchdog
        self._part = part
        self._write_line = write_line
        self._lines: deque[str] = deque(maxlen=_LAST_LINES_MAX)
        self._process: DetachedProcess | None = None
        self._output_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the program and wait until it is ready.

        Raises:
            PartEnded: The program ended before it was ready, or was not ready in time.
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
        self._output_task = asyncio.create_task(self._print_output(reader))
        if self._part.ready is not None:
            await self._until_ready(self._part.ready)

    async def ended(self) -> str:
        """Wait until the program has ended, and return a description such as "ended with exit code 1".

        Before this method returns, child processes that outlived the program are killed, and the last lines
        of the program are printed.
        """
        assert self._process is not None
        exit_code = await self._process.wait()
        await self._end_children()
        return describe_exit(exit_code)

    async def stop(self, within_s: float) -> None:
        """Send SIGTERM to the program, and SIGKILL if it has not ended after *within_s* seconds.

        Child processes that outlive the program get SIGKILL too.
        """
        if self._process is not None:
            await self._process.stop(signal.SIGTERM, stop_s=within_s)
            await self._end_children()

    def last_lines(self) -> str:
        """Return the last 10 lines of the program's output."""
        return "\n".join(self._lines)

    def ready_note(self) -> str:
        """Return an empty text, because the program's output is in the supervisor's log."""
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
        """Kill the child processes that outlived the program, and wait until the output was printed.

        Such child processes would keep the program's ports and its output pipe open. The wait for the output
        ends after 1 s.
        """
        assert self._process is not None
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._watchdog.unwatch(self._process.pid)
        if self._output_task is not None:
            await asyncio.wait({self._output_task}, timeout=_OUTPUT_ENDS_S)
            self._output_task.cancel()

    async def _print_output(self, reader: int) -> None:
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
                    self._print_line(line)
            if rest:
                self._print_line(rest)
        finally:
            transport.close()

    def _print_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r")
        self._lines.append(text)
        self._write_line(self.name, text)


class SupervisedServer:
    """Run the server of a :class:`ServerPart` for a supervisor.

    An error of the first start is raised as it is, because its message says what to do. An error of a later
    start counts as a crash.
    """

    def __init__(self, part: ServerPart) -> None:
        self.name = part.name
        self._server = part.server
        self._was_ready = False

    async def start(self) -> None:
        """Start the server and wait until it is ready.

        Raises:
            LocalError: The first start failed.
            PartEnded: A later start failed.
        """
        try:
            await self._server.start()
        except LocalError as error:
            if not self._was_ready:
                raise
            raise PartEnded(f"could not be started again: {error}") from error
        self._was_ready = True

    async def ended(self) -> str:
        """Wait until the server has ended, and return a description such as "ended with exit code 1"."""
        exit_code = await self._server.wait()
        self._server.kill()
        return describe_exit(exit_code)

    async def stop(self, within_s: float) -> None:
        """Stop the server; send SIGKILL if it has not ended after *within_s* seconds."""
        try:
            await asyncio.wait_for(self._server.stop(), within_s)
        except TimeoutError:
            self._server.kill()

    def last_lines(self) -> str:
        """Return the last 10 lines of the server's log file."""
        return tail(self._server.log, lines_max=_LAST_LINES_MAX)

    def ready_note(self) -> str:
        """Return ``, data in DIRECTORY``; for root, DIRECTORY may differ from the configured directory."""
        return f", data in {self._server.resolved_data_dir}"


def describe_exit(exit_code: int) -> str:
    """Return a description of the exit, such as "was ended by SIGKILL (exit code -9)".

    Args:
        exit_code: Exit code of the process; -n if signal n ended the process.
    """
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    return f"was ended by {signal.Signals(-exit_code).name} (exit code {exit_code})"
