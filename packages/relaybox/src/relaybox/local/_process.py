"""Start and stop processes of servers and programs, wait for their exit, and end orphaned processes."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from relaybox.local._account import Account
from relaybox.local._errors import ServerDidNotStart

_LAUNCHER = Path(__file__).with_name("_launch.py")
_EXIT_POLL_S = 0.05
_TAIL_BYTES_MAX = 16_384
#: Seconds to wait for the exit after SIGKILL.
_KILL_WAIT_S = 5.0


class DetachedProcess:
    """A running program with its child processes.

    The program runs in its own session, so that Ctrl-C in the terminal does not reach the program, but only
    the process that created this object. On Linux the kernel sends the signal *parent_death* to the program
    when the thread that created this object ends. This class does not use the subprocesses of asyncio,
    because they end with their event loop, and each test has its own loop.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        output: int,
        env: Mapping[str, str],
        cwd: Path,
        parent_death: signal.Signals,
        account: Account | None = None,
    ) -> None:
        """Start *argv*.

        Args:
            argv: The program and its arguments.
            output: File descriptor for stdout and stderr; the caller closes it.
            env: All environment variables of the program.
            cwd: Working directory.
            parent_death: Signal that the kernel sends to the program at the death of the starting thread.
            account: Account that runs the program; None for the current user.
        """
        uid, gid = (account.uid, account.gid) if account else (os.getuid(), os.getgid())
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER)]
        parameters = [str(os.getpid()), str(int(parent_death)), str(uid), str(gid)]
        self._popen = subprocess.Popen(  # noqa: S603 – argv of this package
            [*launcher, *parameters, *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code, -n if signal n ended the process; None while the process runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Wait until the process has ended and return its exit code."""
        await wait_for_exit(self.pid)
        return self._popen.wait()

    async def stop(self, first: signal.Signals, *, stop_s: float) -> None:
        """Send the signal *first*, and return when the process has ended.

        If the process has not ended after *stop_s* seconds, the process and its descendants get SIGKILL. A
        paused process is continued first (SIGCONT), because it would not handle the signal.
        """
        if self.exit_code is not None:
            return
        self._popen.send_signal(signal.SIGCONT)
        self._popen.send_signal(first)
        try:
            await asyncio.wait_for(self.wait(), stop_s)
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """Send SIGKILL to the process and its descendants; block the thread until the process has ended.

        Raises:
            subprocess.TimeoutExpired: The process has not ended within 5 s.
        """
        if self.exit_code is None:
            self.signal_tree(signal.SIGSTOP)  # so that no process restarts another that was killed
            for pid in (
                *descendants(self.pid),
                self.pid,
            ):  # the parent last, because its children get another parent when it dies
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._popen.wait(_KILL_WAIT_S)

    def pause(self) -> None:
        """Send SIGSTOP to the process and its descendants; return when the process has stopped or has ended.

        The method has to wait, because the kernel stops a process only after one of its threads has received
        the signal. On a busy machine the process runs for some milliseconds until then.
        """
        self.signal_tree(signal.SIGSTOP)
        with suppress(ChildProcessError):  # it has ended
            os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def signal_tree(self, number: signal.Signals) -> None:
        """Send *number* to the process first, then to each of its descendants."""
        self._popen.send_signal(number)
        for pid in descendants(self.pid):  # after the parent, because a stopped parent starts no children
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class ServerProcess(DetachedProcess):
    """A detached process whose output is appended to a log file."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        env: Mapping[str, str],
        cwd: Path,
        parent_death: signal.Signals,
        account: Account | None = None,
    ) -> None:
        """Start *argv* with stdout and stderr appended to *log*; other arguments as in the base class."""
        self.log = log
        with log.open("ab") as output:
            super().__init__(
                argv, output=output.fileno(), env=env, cwd=cwd, parent_death=parent_death, account=account
            )

    async def until_ready(
        self, server: str, is_ready: Callable[[], Awaitable[bool]], *, start_s: float, pause_s: float
    ) -> None:
        """Call *is_ready* every *pause_s* seconds until it returns True; *server* is a name for messages.

        Raises:
            ServerDidNotStart: The process ended, or was not ready within *start_s* seconds.
        """
        ended = asyncio.ensure_future(self.wait())
        try:
            async with asyncio.timeout(start_s):
                while not await is_ready():
                    done, _ = await asyncio.wait({ended}, timeout=pause_s)
                    if done:
                        raise self._did_not_start(server, f"did not start: exit code {ended.result()}")
        except TimeoutError:
            raise self._did_not_start(server, f"did not start: not ready within {start_s:g} s") from None
        finally:
            ended.cancel()

    async def finish(self, program: str, *, within_s: float) -> None:
        """Wait until this program has ended; used for programs that prepare a server, such as ``initdb``.

        Args:
            program: Name of this program, for messages.
            within_s: Time limit in seconds; the program is killed after this time.

        Raises:
            ServerDidNotStart: The exit code was not 0, or the program ran longer than *within_s* seconds.
        """
        try:
            exit_code = await asyncio.wait_for(self.wait(), within_s)
        except TimeoutError:
            self.kill()
            raise self._did_not_start(program, f"failed: it took longer than {within_s:g} s") from None
        if exit_code != 0:
            raise self._did_not_start(program, f"failed: exit code {exit_code}")

    def _did_not_start(self, server: str, what: str) -> ServerDidNotStart:
        return ServerDidNotStart(server=server, what=what, log=self.log, tail=tail(self.log))


def tail(log: Path, *, lines_max: int = 15) -> str:
    """Return the last *lines_max* lines of a log file; an empty text if the file does not exist.

    Only the last 16 KiB of the file are read.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES_MAX))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines_max:])


async def wait_for_exit(pid: int) -> None:
    """Wait until the process with the id *pid* has ended; it need not be a child of this process."""
    if sys.platform != "linux":
        while is_alive(pid):  # noqa: ASYNC110 – no notification on this platform
            await asyncio.sleep(_EXIT_POLL_S)
        return
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(handle, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(handle)
        os.close(handle)


async def end_orphans(pids: Iterable[int], first: signal.Signals, *, stop_s: float) -> None:
    """Stop processes that another process started, and return when they have ended.

    Each process gets the signal *first*. If a process has not ended after *stop_s* seconds, the remaining
    processes get SIGKILL. The function waits at most 5 s longer, and raises no error if a process still runs.
    """
    pids = list(pids)
    for number, wait_s in ((first, stop_s), (signal.SIGKILL, _KILL_WAIT_S)):
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
                os.kill(pid, number)
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*(wait_for_exit(pid) for pid in pids)), wait_s)
            return


def is_alive(pid: int) -> bool:
    """Return whether a process with this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descendants(pid: int) -> list[int]:
    """List the descendants of *pid*, parents first; always empty on systems other than Linux."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may contain any character, so parse after the last parenthesis.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for child in found:  # grows during the iteration
        found.extend(children.get(child, []))
    return found


def processes_in(directory: Path, name: str) -> list[int]:
    """List the ids of the processes that have the name *name* and the working directory *directory*.

    Processes that this user may not see are left out. The list is always empty on systems other than Linux.
    """
    found: list[int] = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            process_name = (link.parent / "comm").read_text().strip()
            if process_name == name and link.readlink() == directory:
                found.append(int(link.parent.name))
    return sorted(found)
