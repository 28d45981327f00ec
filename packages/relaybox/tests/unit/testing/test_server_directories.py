"""Directories of test servers: those of killed test processes are removed."""

import subprocess
import sys
from pathlib import Path

import pytest
from relaybox.testing import _servers, server_directory

_KILLED = (
    "import fcntl, os, sys; fcntl.flock(open(sys.argv[1], 'wb'), fcntl.LOCK_EX); os.kill(os.getpid(), 9)"
)


@pytest.fixture(autouse=True)
def _memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_servers, "_MEMORY", tmp_path)
    monkeypatch.setattr(_servers, "_ROOM_BYTES", 0)


def test_directory_of_a_killed_process_is_removed(tmp_path: Path) -> None:
    killed = tmp_path / "relaybox-tests-killed"
    (killed / "postgres").mkdir(parents=True)
    subprocess.run([sys.executable, "-I", "-S", "-c", _KILLED, killed / "owner"], check=False)
    with server_directory() as place:
        assert list(tmp_path.iterdir()) == [place]


def test_directories_of_possibly_running_processes_are_kept(tmp_path: Path) -> None:
    (unknown := tmp_path / "relaybox-tests-unknown").mkdir()
    (other := tmp_path / "other").mkdir()
    with server_directory() as living, server_directory() as place:
        assert set(tmp_path.iterdir()) == {unknown, other, living, place}
    assert set(tmp_path.iterdir()) == {unknown, other}
