"""Create a directory for the servers of tests, and run coroutines in fixtures that are not coroutines."""

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import Coroutine, Generator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeVar

__all__ = ("run_in_own_loop", "server_directory")

T = TypeVar("T")
_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a random name below it, by mkdtemp
#: Free space that ``/dev/shm`` must have to be used. Its default size is half of the machine's memory.
_ROOM_BYTES: Final = 4 * 2**30
_PREFIX: Final = "relaybox-tests-"
#: File in a directory for servers, locked while the process that created the directory lives.
_OWNER: Final = "owner"
_SWEPT_MAX: Final = 16


def run_in_own_loop(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* in a new event loop and return its result; no event loop may be running in this thread."""
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


@contextmanager
def server_directory() -> Generator[Path]:
    """Create a directory for the servers of tests, and delete it at the end of the ``with`` block.

    Other accounts of the operating system can enter the directory, unlike ``tmp_path`` of pytest, because
    PostgreSQL does not run as root. The directory is in ``/dev/shm`` if 4 GiB are free there: databases
    create and delete thousands of files, and ext4's search for free inodes took a third of the time of a
    suite.
    """
    roomy = os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_MEMORY if roomy else None))
    directory.chmod(0o711)
    _remove_left_over(directory.parent)
    locked = directory / f"{_OWNER}.new"
    with locked.open("wb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        locked.rename(directory / _OWNER)  # after the lock: an unlocked directory counts as left over
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _remove_left_over(parent: Path) -> None:
    """Remove up to 16 directories that killed test processes left in *parent*."""
    left_over = (path for path in parent.glob(f"{_PREFIX}*") if _is_left_over(path))
    for path in islice(left_over, _SWEPT_MAX):
        shutil.rmtree(path, ignore_errors=True)


def _is_left_over(directory: Path) -> bool:
    """Return whether the process that created *directory* has ended, which released its lock on a file."""
    try:
        with (directory / _OWNER).open("rb") as owner:
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
