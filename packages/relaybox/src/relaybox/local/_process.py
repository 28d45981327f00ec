"""A server process: started detached from the terminal, watched without polling, known after a crash."""

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
#: After SIGKILL only the kernel's clearing up is left.
_KILL_WAIT_S = 5.0


class DetachedProcess:
    """One running program with its children.

    It has a session of its own, so that the terminal's Ctrl-C reaches only its starter, and gets
    *parent_death* from the kernel when the thread that started it dies without a word (Linux).
    Not an asyncio subprocess: those die with the event loop, and tests have a loop each.
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
        """Start *argv* with both outputs going to the file descriptor *output*, which stays the caller's."""
        uid, gid = (account.uid, account.gid) if account else (os.getuid(), os.getgid())
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER)]
        terms = [str(os.getpid()), str(int(parent_death)), str(uid), str(gid)]
        self._popen = subprocess.Popen(  # noqa: S603 – argv is ours
            [*launcher, *terms, *argv],
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
        """Exit code, negative for a signal; None while it runs."""
        return self._popen.poll()

    async def wait(self) -> int:
        """Return the exit code once the process has ended."""
        await wait_for_exit(self.pid)
        return self._popen.wait()

    async def stop(self, first: signal.Signals, *, stop_s: float) -> None:
        """Send *first*, wait *stop_s* seconds, then SIGKILL the whole tree; returns when it is gone."""
        if self.exit_code is not None:
            return
        self._popen.send_signal(signal.SIGCONT)
        self._popen.send_signal(first)
        try:
            await asyncio.wait_for(self.wait(), stop_s)
        except TimeoutError:
            self.kill()

    def kill(self) -> None:
        """SIGKILL the process and its descendants, as a power cut would; returns when it is gone."""
        if self.exit_code is None:
            self.signal_tree(signal.SIGSTOP)  # nobody may notice a death and react to it
            for pid in (
                *descendants(self.pid),
                self.pid,
            ):  # once it is dead its children are no longer its own
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._popen.wait(_KILL_WAIT_S)

    def signal_tree(self, number: signal.Signals) -> None:
        """Send *number* to the process first, then to each of its descendants."""
        self._popen.send_signal(number)
        for pid in descendants(self.pid):  # looked up now: a stopped parent makes no more of them
            with suppress(ProcessLookupError):
                os.kill(pid, number)


class ServerProcess(DetachedProcess):
    """A server's program, its output appended to a log file."""

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
        """Start *argv* with both outputs going to *log*."""
        self.log = log
        with log.open("ab") as output:
            super().__init__(
                argv, output=output.fileno(), env=env, cwd=cwd, parent_death=parent_death, account=account
            )

    async def until_ready(
        self, server: str, is_ready: Callable[[], Awaitable[bool]], *, start_s: float, pause_s: float
    ) -> None:
        """Ask *is_ready* until it says yes, with *pause_s* seconds between two questions.

        Raises:
            ServerDidNotStart: the process ended, or *start_s* seconds went by.
        """
        ended = asyncio.ensure_future(self.wait())
        try:
            async with asyncio.timeout(start_s):
                while not await is_ready():
                    done, _ = await asyncio.wait({ended}, timeout=pause_s)
                    if done:
                        raise self._did_not_start(server, f"it ended with exit code {ended.result()}")
        except TimeoutError:
            raise self._did_not_start(server, f"not ready within {start_s:g} s") from None
        finally:
            ended.cancel()

    async def finish(self, server: str, *, within_s: float) -> None:
        """Wait for a program that is meant to end, as a step of starting *server*.

        Raises:
            ServerDidNotStart: it failed, or ran longer than *within_s* seconds.
        """
        try:
            exit_code = await asyncio.wait_for(self.wait(), within_s)
        except TimeoutError:
            self.kill()
            raise self._did_not_start(server, f"a step of it took longer than {within_s:g} s") from None
        if exit_code != 0:
            raise self._did_not_start(server, f"a step of it ended with exit code {exit_code}")

    def _did_not_start(self, server: str, what: str) -> ServerDidNotStart:
        return ServerDidNotStart(server=server, what=what, log=self.log, tail=tail(self.log))


def tail(log: Path, *, lines_max: int = 15) -> str:
    """Return the last lines of a log file; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES_MAX))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines_max:])


async def wait_for_exit(pid: int) -> None:
    """Return when process *pid* has ended; it need not be a child of ours."""
    if sys.platform != "linux":
        while is_alive(pid):  # noqa: ASYNC110 – nothing to wait on
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
    """Stop processes somebody else started: *first*, and SIGKILL for those left after *stop_s* seconds."""
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
    """Tell whether a process with this id exists, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def descendants(pid: int) -> list[int]:
    """List children and children's children of *pid*, parents first (Linux; elsewhere none are seen)."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name in parentheses may hold anything, so count from the last parenthesis.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = list(children.get(pid, []))
    for each in found:  # grows while it is walked
        found.extend(children.get(each, []))
    return found


def processes_in(directory: Path, name: str) -> list[int]:
    """List the processes called *name* that work in *directory*; those this user may see (Linux)."""
    found: list[int] = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with suppress(OSError):
            its_name = (link.parent / "comm").read_text().strip()
            if its_name == name and link.readlink() == directory:
                found.append(int(link.parent.name))
    return sorted(found)
