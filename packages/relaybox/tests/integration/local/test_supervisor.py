"""The supervisor: order, log, crashes and stop."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from relaybox.local import ServerPart, Start, Supervisor
from relaybox.local._process import is_alive, wait_for_exit

from tests.fixtures.bounds import WAIT_S

SCRIPT = Path(__file__).with_name("supervised.py")
SERVE = "import os, signal; print('pid', os.getpid()); signal.pause()"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
CRASH_ONCE_TOLD = "import sys; print('first words'); print('last words'); sys.exit(3)"
WITH_A_CHILD = (
    "import subprocess, sys, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(0));"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()']);"
    "print('pid', child.pid); signal.pause()"
)


class Supervised:
    """The process of a supervisor, and its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def until(self, wanted: str, *, times: int = 1) -> str:
        """Read output until *wanted* occurred *times* times; return the last such line."""
        while True:
            hits = [line for line in self.lines if wanted in line]
            if len(hits) >= times:
                return hits[-1]
            await self._read_line()

    async def pid_of(self, name: str) -> int:
        line = await self.until(f"{name:<14} │ pid")
        return int(line.split()[-1])

    async def end(self) -> int:
        with contextlib.suppress(EOFError):
            while True:
                await self._read_line()
        return await self.process.wait()

    async def _read_line(self) -> None:
        assert self.process.stdout is not None
        line = await asyncio.wait_for(self.process.stdout.readline(), WAIT_S)
        if not line:
            raise EOFError("\n".join(self.lines))
        self.lines.append(line.decode().rstrip("\n"))


class ServerOfNote:
    """A server that records when it is stopped."""

    def __init__(self, name: str, place: Path, ends: list[str]) -> None:
        self.log = self.resolved_data_dir = place
        self._name = name
        self._ends = ends

    async def start(self) -> None:
        return

    async def stop(self) -> None:
        self._ends.append(self._name)

    def kill(self) -> None:
        return

    async def wait(self) -> int:
        return await asyncio.get_running_loop().create_future()


@pytest.fixture
async def supervise() -> AsyncIterator[Callable]:
    started: list[Supervised] = []

    async def start(*arguments: str) -> Supervised:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            SCRIPT,
            *arguments,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=2**20,
        )
        started.append(Supervised(process))
        return started[-1]

    yield start
    for each in started:
        with contextlib.suppress(ProcessLookupError):
            each.process.kill()
        await each.end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_signal_stops_every_program_and_exits_0(supervise, number) -> None:
    goodbye = "import sys, signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(print('bye'))); " + SERVE
    product = await supervise("first", goodbye, "second", goodbye)
    await product.pid_of("first")
    await product.pid_of("second")

    product.process.send_signal(number)

    assert await product.end() == 0
    goodbyes = {line.split()[0] for line in product.lines if line.endswith("bye")}
    assert goodbyes == {"second", "first"}


async def test_programs_are_stopped_concurrently(supervise, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # A FIFO opens when both ends are open, so both programs get the signal before one of them ends.
    meet = "import signal; signal.signal(signal.SIGTERM, lambda *_: exit(print('bye', open({!r}, {!r})))); "
    first, second = meet.format(str(fifo), "w"), meet.format(str(fifo), "r")
    product = await supervise("first", first + SERVE, "second", second + SERVE)
    await product.pid_of("first")
    await product.pid_of("second")

    product.process.send_signal(signal.SIGTERM)

    assert await product.end() == 0
    assert {line.split()[0] for line in product.lines if "bye" in line} == {"first", "second"}


async def test_servers_stop_in_reverse_order(tmp_path: Path) -> None:
    ends: list[str] = []

    async def compose(start: Start) -> None:
        await start(ServerPart(name="first", server=ServerOfNote("first", tmp_path, ends)))
        await start(ServerPart(name="second", server=ServerOfNote("second", tmp_path, ends)))
        os.kill(os.getpid(), signal.SIGTERM)

    assert await Supervisor().run(compose) == 0
    assert ends == ["second", "first"]


async def test_part_that_ignores_sigterm_is_killed(supervise) -> None:
    product = await supervise("stubborn", STUBBORN, "meek", SERVE)
    pids = [await product.pid_of("stubborn"), await product.pid_of("meek")]

    product.process.send_signal(signal.SIGINT)

    async with asyncio.timeout(WAIT_S):
        assert await product.end() == 0
    assert not any(is_alive(pid) for pid in pids)


async def test_crashed_part_is_reported_and_restarted(supervise) -> None:
    product = await supervise("steady", SERVE, "brittle", CRASH_ONCE_TOLD)

    report = await product.until("brittle ended with exit code 3")
    await product.until("    last words")
    await product.until("Restarting brittle in 0.25 s")
    await product.until("brittle        │ ready in", times=2)

    assert report.startswith("relaybox ")


async def test_part_that_keeps_crashing_is_down_and_the_rest_keeps_running(supervise) -> None:
    product = await supervise("steady", SERVE, "brittle", CRASH_ONCE_TOLD)
    steady = await product.pid_of("steady")

    await product.until("brittle is down: it crashed 3 times in a row.")
    await product.until("Restarting brittle in 8 s; the other parts keep running.")
    assert is_alive(steady)

    product.process.send_signal(signal.SIGTERM)

    assert await product.end() == 1
    assert product.lines[-1].endswith("brittle: down, crashed 6 times in a row, ended with exit code 3")
    assert not is_alive(steady)


async def test_program_that_is_never_ready_delays_no_other_part(supervise) -> None:
    product = await supervise("missing", "not Python", "steady", SERVE)

    await product.until("missing is down: it crashed 3 times in a row.")
    await product.pid_of("steady")


async def test_killed_part_is_reported_with_its_signal(supervise) -> None:
    product = await supervise("victim", SERVE)

    os.kill(await product.pid_of("victim"), signal.SIGKILL)

    await product.until("victim was ended by SIGKILL")


async def test_children_of_a_crashed_part_are_killed(supervise) -> None:
    product = await supervise("parent", WITH_A_CHILD + "; sys.exit(1)")
    orphan = await product.pid_of("parent")
    parent = os.getpgid(orphan)  # a part leads its process group

    os.kill(parent, signal.SIGKILL)

    await asyncio.wait_for(wait_for_exit(orphan), WAIT_S)


@pytest.mark.parametrize("code", [SERVE, STUBBORN, WITH_A_CHILD], ids=["meek", "stubborn", "with a child"])
async def test_parts_end_with_a_killed_supervisor(supervise, code) -> None:
    product = await supervise("part", code)
    pid = await product.pid_of("part")

    product.process.kill()

    await asyncio.wait_for(wait_for_exit(pid), WAIT_S)


async def test_part_does_not_get_ctrl_c_of_the_terminal(supervise) -> None:
    product = await supervise("part", SERVE)
    pid = await product.pid_of("part")

    assert os.getpgid(pid) != os.getpgid(product.process.pid)
    assert os.getsid(pid) != os.getsid(product.process.pid)


async def test_incomplete_and_undecodable_lines_are_printed(supervise) -> None:
    odd = "import sys; sys.stdout.buffer.write(b'x' * 200_000 + b'\\nnot \\xff utf-8\\nno newline')"
    product = await supervise("odd", odd)

    await product.until("not \ufffd utf-8")
    await product.until("no newline")
