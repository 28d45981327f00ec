"""Processes that are paused."""

import os
import signal
import sys
from pathlib import Path

from relaybox.local._process import DetachedProcess

#: Runs eight threads that are always busy, and prints a line when they run.
_BUSY = (
    "import threading\n"
    "for _ in range(8): threading.Thread(target=lambda: [None for _ in iter(int, 1)]).start()\n"
    "print(flush=True)"
)


def started(directory: Path) -> DetachedProcess:
    reader, writer = os.pipe()
    process = DetachedProcess(
        [sys.executable, "-c", _BUSY],
        output=writer,
        env=os.environ,
        cwd=directory,
        parent_death=signal.SIGKILL,
    )
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
    return process


def state(process: DetachedProcess) -> str:
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_process_has_stopped_when_pause_returns(tmp_path: Path) -> None:
    processes = [started(tmp_path) for _ in range(4)]
    states: list[str] = []
    try:
        for process in processes:
            process.pause()
            states.append(state(process))
    finally:
        for process in processes:
            process.kill()
    assert states == ["T"] * 4


def test_process_that_has_ended_can_be_paused(tmp_path: Path) -> None:
    process = started(tmp_path)
    process.kill()
    process.pause()
    assert process.exit_code == -signal.SIGKILL
