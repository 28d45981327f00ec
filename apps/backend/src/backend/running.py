"""One product per data directory, and what a shell needs to know of the one that runs."""

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

#: Of the clone: apps/backend/src/backend/running.py.
_LEVELS_UP: Final = 4


class NotRunning(RelayboxError):
    """Raised when the running product is asked for and there is none."""

    error_code = "PRODUCT_NOT_RUNNING"


class AlreadyRunning(RelayboxError):
    """Raised when a product runs on the same data directory; stop it, or choose another directory."""

    error_code = "PRODUCT_ALREADY_RUNNING"


class DataDirectoryUnusable(RelayboxError):
    """Raised when the data directory cannot be made or written."""

    error_code = "PRODUCT_DATA_DIRECTORY_UNUSABLE"

    def __init__(self, path: Path, error: OSError) -> None:
        remedy = "make it writable for this user, or set RELAYBOX_DATA_DIR to another directory"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some room on that disk, or set RELAYBOX_DATA_DIR to a directory on another one"
        super().__init__(f"the product's data cannot be kept in {path}: {error.strerror}; {remedy}")


def _default_root() -> Path:
    """The clone this code is run from; the working directory where it was installed from a wheel."""
    root = Path(__file__).resolve().parents[_LEVELS_UP]
    return root if (root / "Makefile").exists() else Path.cwd()


class ProductSettings(BaseSettings):
    """Where the product keeps its data."""

    model_config = SettingsConfigDict(
        env_prefix="RELAYBOX_", frozen=True, extra="ignore", env_ignore_empty=True
    )

    #: Outlives the product; one product at a time uses it.
    data_dir: Path = _default_root() / ".relaybox" / "data"

    @property
    def state_file(self) -> Path:
        """Locked by the product while it runs; holds its environment once it is ready."""
        return self.data_dir / "running.json"

    @property
    def parts_file(self) -> Path:
        """The parts of the product that ran last, with their states; kept up to date while it runs."""
        return self.data_dir / "parts.json"


class RunningProduct:
    """The hold of a running product on its data directory."""

    def __init__(self, handle: int, parts_file: Path) -> None:
        self._handle, self._parts_file = handle, parts_file

    def announce(self, environment: Mapping[str, str]) -> None:
        """Let ``backend env`` and the demo find the product, which is ready now."""
        text = json.dumps({"pid": os.getpid(), "environment": dict(environment)})
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, text.encode(), 0)

    def report(self, parts: Sequence[Mapping[str, object]]) -> None:
        """Let ``backend status`` find the state of every part; readers see the old list or the new one."""
        made = self._parts_file.with_suffix(".new")
        made.write_text(json.dumps(parts))
        made.replace(self._parts_file)


@contextmanager
def lock_data_directory(settings: ProductSettings) -> Generator[RunningProduct]:
    """Hold the data directory, which is made if need be, for the time of the context.

    A lock of the kernel's, which ends with the process however that ends: a file that a killed
    product left behind is never mistaken for a running one.

    Raises:
        AlreadyRunning: another product holds it.
        DataDirectoryUnusable: it cannot be made or written.
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
            f"a product runs on {settings.data_dir} already; stop it with Ctrl-C where it runs, "
            "or set RELAYBOX_DATA_DIR and API_PORT for a second one"
        ) from None
    try:
        os.ftruncate(handle, 0)
        settings.parts_file.unlink(missing_ok=True)
        yield RunningProduct(handle, settings.parts_file)
    finally:
        # Emptied, not removed: somebody who has just opened it must not lock a file without a name.
        os.ftruncate(handle, 0)
        os.close(handle)


def running_environment(settings: ProductSettings) -> dict[str, str]:
    """The settings of the running product (contract, section 7).

    Raises:
        NotRunning: none runs on this data directory, or it is not ready yet.
    """
    text = _read_state(settings)
    if not text:
        raise NotRunning("the product is still starting; ask again when it says that it is ready")
    return json.loads(text)["environment"]


def running_parts(settings: ProductSettings) -> list[dict[str, Any]]:
    """Return what the running product reported of its parts last, in the order of their start.

    Raises:
        NotRunning: none runs on this data directory.
    """
    _read_state(settings)
    return json.loads(settings.parts_file.read_text()) if settings.parts_file.exists() else []


def _read_state(settings: ProductSettings) -> str:
    """Return what the product that runs has announced; empty while it starts."""
    try:
        with settings.state_file.open() as file:
            if not _is_locked(file.fileno()):
                raise NotRunning("the product does not run; start it with `make run`")
            return file.read()
    except FileNotFoundError:
        raise NotRunning("the product does not run; start it with `make run`") from None
    except PermissionError:
        raise NotRunning(f"{settings.state_file} belongs to another user; ask as that user") from None


def _is_locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def write_private(file: Path, text: str) -> None:
    """Write *text* so that nobody but this user can read it."""
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
        target.write(text)
