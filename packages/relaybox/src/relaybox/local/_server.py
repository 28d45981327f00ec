"""Start, stop, kill and pause a local server: one process on a locked data directory."""

import fcntl
import os
import shutil
import signal
from abc import ABC, abstractmethod
from pathlib import Path

from relaybox.local._errors import DataDirectoryInUse, DiskFull, ServerDidNotStart
from relaybox.local._ports import LOOPBACK, free_port, require_free_port
from relaybox.local._process import ServerProcess, end_orphans, processes_in

STOP_S = 8.0
_LOCK = "in-use-by"
#: Free space that a start requires; the first WAL segment of PostgreSQL alone has 16 MiB.
_FREE_BYTES_MIN = 64 * 2**20
_LOG_BYTES_MAX = 32 * 2**20
_NO_SPACE = "No space left on device"


class DirectoryLock:
    """An exclusive lock on *directory*; the kernel releases it when this process dies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _LOCK
        self._handle: int | None = None

    def acquire(self) -> None:
        """Acquire the lock.

        Raises:
            DataDirectoryInUse: Another living process holds the lock.
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
        """Release the lock if it is held."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class LocalServer(ABC):
    """One server with its data directory; starts, stops, kills and pauses the process of the server.

    A subclass starts the process in :meth:`_launch_server`.
    """

    host: str = LOOPBACK
    #: Signal of an orderly stop.
    _stop_signal = signal.SIGTERM

    def __init__(self, data_dir: Path, port: int | None) -> None:
        self.data_dir = data_dir.resolve()
        self.port = port or 0
        self._port_is_given = port is not None
        self._lock: DirectoryLock | None = None
        self._process: ServerProcess | None = None

    async def start(self) -> None:
        """Start the server and return when it accepts connections.

        A server may still run on the directory although the process that started the server has died. On
        Linux such a server is stopped first.

        Raises:
            DataDirectoryOfAnotherVersion: Another version of the server wrote the directory.
            DataDirectoryInUse: Another living process runs a server on the directory.
            DataDirectoryNotUsable: The directory cannot be created or written.
            DiskFull: Less than 64 MiB are free, or the server's log says that no space is left.
            PortTaken: A port was given, and another process listens on it.
            ServerNotAvailable: The programs of the server are not installed or cannot be downloaded.
            ServerDidNotStart: The server ended, or was not ready in time; with the last lines of its log.
            LocalError: Any other failure; for example, no port is free.
        """
        self._prepare_directory()
        lock = DirectoryLock(self.resolved_data_dir)
        lock.acquire()
        try:
            await self._launch_server()
        except BaseException as error:
            if self._process is not None:
                self._process.kill()
                self._process = None
            lock.release()
            if isinstance(error, ServerDidNotStart) and _NO_SPACE in str(error):
                raise DiskFull(
                    path=self.resolved_data_dir, free_bytes=shutil.disk_usage(self.resolved_data_dir).free
                ) from None
            raise
        self._lock = lock

    async def stop(self) -> None:
        """Shut down the server; send SIGKILL if it has not ended after 8 s."""
        await self._stop(self._stop_signal)

    def kill(self) -> None:
        """Send SIGKILL to all processes of the server."""
        if self._process is not None:
            self._process.kill()
        self._forget_process()

    def pause(self) -> None:
        """Stop all processes of the server by SIGSTOP: connections stay open and get no response."""
        self._running().pause()

    def resume(self) -> None:
        """Let all processes of the server continue after :meth:`pause` (SIGCONT)."""
        self._running().signal_tree(signal.SIGCONT)

    async def wait(self) -> int:
        """Wait until the server has ended and return its exit code."""
        return await self._running().wait()

    @property
    def is_started(self) -> bool:
        """Whether :meth:`start` has returned, and neither :meth:`stop` nor :meth:`kill` was called since."""
        return self._lock is not None

    @property
    def resolved_data_dir(self) -> Path:
        """The directory of data and log, which may differ from *data_dir* if the user is root."""
        return self.data_dir

    @property
    @abstractmethod
    def log(self) -> Path:
        """The log file; removed at a start if it is larger than 32 MiB."""

    @abstractmethod
    def settings(self) -> dict[str, str]:
        """Return the environment variables with which services connect to this server."""

    @abstractmethod
    def _prepare_directory(self) -> None:
        """Create :attr:`resolved_data_dir`."""

    @abstractmethod
    async def _launch_server(self) -> None:
        """Start :attr:`_process` and wait until it is ready; the caller holds the lock on the directory."""

    async def _stop(self, stop_signal: signal.Signals) -> None:
        if self._process is not None:
            await self._process.stop(stop_signal, stop_s=STOP_S)
        self._forget_process()

    def _running(self) -> ServerProcess:
        assert self._process is not None, "the server was not started"
        return self._process

    def _forget_process(self) -> None:
        self._process = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    async def _end_orphans(self, directory: Path, program: str) -> None:
        """Stop the processes with the name *program* and the working directory *directory*.

        The process that started them has died: if it were alive, it would hold the lock on the data
        directory, but this process holds the lock. Processes are found only on Linux.
        """
        await end_orphans(processes_in(directory, program), self._stop_signal, stop_s=STOP_S)

    def _require_resources(self, *, port_setting: str) -> None:
        """Check port and disk space before a start; remove the log file if it is larger than 32 MiB.

        Args:
            port_setting: Environment variable of the port, for the message of PortTaken.

        Raises:
            PortTaken: A port was given, and another process listens on it. (If no port was given, this method
                chooses a free one.)
            DiskFull: The disk of the data directory has less than 64 MiB free.
            LocalError: No free port was found.
        """
        if self._port_is_given:
            require_free_port(self.port, setting=port_setting)
        self.port = self.port or free_port()
        free_bytes = shutil.disk_usage(self.resolved_data_dir).free
        if free_bytes < _FREE_BYTES_MIN:
            raise DiskFull(path=self.resolved_data_dir, free_bytes=free_bytes)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES_MAX:
            self.log.unlink()
