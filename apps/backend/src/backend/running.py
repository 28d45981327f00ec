"""Lock the data directory of the product on this machine, and store its settings there for other programs."""

import errno
import fcntl
import json
import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic_settings import BaseSettings, SettingsConfigDict
from relaybox.errors import RelayboxError

__all__ = (
    "AlreadyRunning",
    "DataDirectoryUnusable",
    "NotRunning",
    "ProductSettings",
    "RunningProduct",
    "lock_data_directory",
    "running_environment",
    "running_parts",
    "write_private",
)

#: Directories between this file, apps/backend/src/backend/running.py, and the root of the clone.
_LEVELS_UP: Final = 4


class NotRunning(RelayboxError):
    """Raised when no product runs on the data directory, or the product is not ready yet."""

    error_code = "PRODUCT_NOT_RUNNING"


class AlreadyRunning(RelayboxError):
    """Raised when another running product has locked the data directory."""

    error_code = "PRODUCT_ALREADY_RUNNING"


class DataDirectoryUnusable(RelayboxError):
    """Raised when the data directory cannot be created or written."""

    error_code = "PRODUCT_DATA_DIRECTORY_UNUSABLE"

    def __init__(self, path: Path, error: OSError) -> None:
        remedy = "make it writable for this user, or set RELAYBOX_DATA_DIR to another directory"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space on that disk, or set RELAYBOX_DATA_DIR to a directory on another disk"
        super().__init__(f"the product's data cannot be stored in {path}: {error.strerror}; {remedy}")


def _default_root() -> Path:
    """Return the root of the clone; the working directory if the package was installed from a wheel."""
    root = Path(__file__).resolve().parents[_LEVELS_UP]
    return root if (root / "Makefile").exists() else Path.cwd()


class ProductSettings(BaseSettings):
    """Where the product stores its data, from ``RELAYBOX_*``."""

    model_config = SettingsConfigDict(
        env_prefix="RELAYBOX_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Directory of the data, which remain when the product stops. Only one product at a time can use the
    #: directory.
    data_dir: Path = _default_root() / ".relaybox" / "data"

    @property
    def state_file(self) -> Path:
        """Return the file that the running product locks and, once ready, writes its settings to."""
        return self.data_dir / "running.json"

    @property
    def parts_file(self) -> Path:
        """Return the file with the last reported state of each part: a server or service of the product."""
        return self.data_dir / "parts.json"


class RunningProduct:
    """Writes the files in which the running product describes itself; see :func:`lock_data_directory`.

    *handle* is the open descriptor of the locked state file.
    """

    def __init__(self, handle: int, parts_file: Path) -> None:
        self._handle, self._parts_file = handle, parts_file

    def announce(self, environment: Mapping[str, str]) -> None:
        """Store the environment variables of the ready product for ``backend env`` and the demo."""
        text = json.dumps({"pid": os.getpid(), "environment": dict(environment)})
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text.encode(), 0)

    def report(self, parts: Sequence[Mapping[str, object]]) -> None:
        """Store the states of all parts for ``backend status``; the file is replaced atomically."""
        made = self._parts_file.with_suffix(".new")
        made.write_text(json.dumps(parts))
        made.replace(self._parts_file)


@contextmanager
def lock_data_directory(settings: ProductSettings) -> Generator[RunningProduct]:
    """Create the data directory if necessary, and lock its state file until the end of the context.

    The kernel releases the lock when the process ends, even by SIGKILL. So a state file without a lock is
    always that of a product that no longer runs.

    Raises:
        AlreadyRunning: Another product has locked the directory.
        DataDirectoryUnusable: The directory cannot be created or written.
    """
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        handle = os.open(settings.state_file, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DataDirectoryUnusable(settings.data_dir, error) from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise AlreadyRunning(
            f"a product runs on {settings.data_dir} already; stop that product with Ctrl-C in its terminal, "
            "or set RELAYBOX_DATA_DIR and API_PORT to run a second product"
        ) from None
    try:
        os.ftruncate(handle, 0)
        settings.parts_file.unlink(missing_ok=True)
        yield RunningProduct(handle, settings.parts_file)
    finally:
        # Empty the file instead of deleting it: another process may have opened the file and then lock it.
        os.ftruncate(handle, 0)
        os.close(handle)


def running_environment(settings: ProductSettings) -> dict[str, str]:
    """Return the environment variables with which programs use the running product.

    Raises:
        NotRunning: No product runs on this data directory, or the product is not ready yet.
    """
    text = _read_state(settings)
    if not text:
        raise NotRunning(
            f"the product in {settings.data_dir} is still starting; try again when it has printed its address"
        )
    return json.loads(text)["environment"]


def running_parts(settings: ProductSettings) -> list[dict[str, Any]]:
    """Return the last reported states of the parts of the running product, in the order of their start.

    Raises:
        NotRunning: No product runs on this data directory.
    """
    _read_state(settings)
    return json.loads(settings.parts_file.read_text()) if settings.parts_file.exists() else []


def _read_state(settings: ProductSettings) -> str:
    """Return the content of the state file of the running product; empty while the product starts."""
    try:
        with settings.state_file.open() as file:
            if not _is_locked(file.fileno()):
                raise NotRunning(f"no product runs on {settings.data_dir}; start one with `make run`")
            return file.read()
    except FileNotFoundError:
        raise NotRunning(f"no product runs on {settings.data_dir}; start one with `make run`") from None
    except PermissionError:
        raise NotRunning(
            f"{settings.state_file} belongs to another user; run this command as that user"
        ) from None


def _is_locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def write_private(file: Path, text: str) -> None:
    """Write *text* to a file that only this user can read."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text)
