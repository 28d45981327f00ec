"""A data directory: one server at a time, and room for it to live."""

import fcntl
import os
import shutil
from pathlib import Path

from relaybox.local._errors import DataDirectoryInUse, DiskFull, ServerDidNotStart

_LOCK = "in-use-by"
#: Less than this and neither server gets through its start: PostgreSQL's first WAL segment alone is 16 MiB.
_FREE_BYTES_MIN = 64 * 2**20
_NO_SPACE = "No space left on device"


class DirectoryLock:
    """Held while this process runs a server on *directory*; the kernel releases it when the process dies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _LOCK
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DataDirectoryInUse: another living process has it.
        """
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(handle, 32).decode(errors="replace").strip()
            os.close(handle)
            raise DataDirectoryInUse(path=self._path.parent, holder=f"process {holder}") from None
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        self._handle = handle

    def release(self) -> None:
        """Let go; harmless if it is not held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def require_free_space(path: Path) -> None:
    """Check that the disk of *path* has the 64 MiB a server needs to start.

    Raises:
        DiskFull: it has not.
    """
    free_bytes = shutil.disk_usage(path).free
    if free_bytes < _FREE_BYTES_MIN:
        raise DiskFull(path=path, free_bytes=free_bytes)


def disk_full_or(error: ServerDidNotStart, path: Path) -> DiskFull | ServerDidNotStart:
    """Choose the better error for a failed start: a full disk where the server's last words say so."""
    if _NO_SPACE in str(error):
        return DiskFull(path=path, free_bytes=shutil.disk_usage(path).free)
    return error
