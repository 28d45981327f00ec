"""Define the errors of local servers.

Each message says what to do. The message of ServerDidNotStart ends with the last lines of the server's log,
which usually show the cause.
"""

from pathlib import Path
from typing import Final

from relaybox.errors import RelayboxError

#: Part of messages: how to install the packages that local servers need.
INSTALL_LOCAL: Final = (
    "In a clone of Relaybox, run: pip install ./packages/types './packages/relaybox[local]'."
)


class LocalError(RelayboxError):
    """Base of all errors of :mod:`relaybox.local`."""

    error_code = "LOCAL_ERROR"


class DataDirectoryOfAnotherVersion(LocalError):
    """Raised when the server cannot read its data directory, because another version wrote the directory."""

    error_code = "LOCAL_DATA_DIRECTORY_VERSION"

    def __init__(self, *, server: str, path: Path, found: str, needed: str, remedy: str) -> None:
        super().__init__(
            f"{path} was created by {server} {found}, but this is {server} {needed}. "
            f"Either move {path} away (a new one is created), or {remedy}."
        )


class DataDirectoryInUse(LocalError):
    """Raised when another living process runs a server on the same data directory."""

    error_code = "LOCAL_DATA_DIRECTORY_IN_USE"

    def __init__(self, *, path: Path, holder: str) -> None:
        super().__init__(
            f"{path} is in use by {holder}. Stop that process, or choose another data directory."
        )


class DataDirectoryNotUsable(LocalError):
    """Raised when a server cannot use its data directory; the message has the reason.

    Examples: the directory cannot be created or written, another user may write into it, or the file with the
    passwords of the database is missing.
    """

    error_code = "LOCAL_DATA_DIRECTORY_NOT_USABLE"

    def __init__(
        self,
        *,
        path: Path,
        reason: str,
        remedy: str = "Make it writable for this user, or choose another directory",
    ) -> None:
        super().__init__(f"{path} cannot be used as a data directory: {reason}. {remedy}.")


class DiskFull(LocalError):
    """Raised when the disk has too little free space for the data of a server."""

    error_code = "LOCAL_DISK_FULL"

    def __init__(self, *, path: Path, free_bytes: int) -> None:
        super().__init__(
            f"No space left for {path}: {free_bytes / 2**20:.0f} MiB free. "
            "Free space on that disk, or choose a directory on another disk."
        )


class PortTaken(LocalError):
    """Raised when another process listens on the port of a server."""

    error_code = "LOCAL_PORT_TAKEN"

    def __init__(self, *, port: int, owner: str | None, setting: str) -> None:
        by = f" by {owner}" if owner else ""
        super().__init__(f"Port {port} is taken{by}. Stop that process, or set {setting} to another port.")


class ServerDidNotStart(LocalError):
    """Raised when a server ended before it was ready, or was not ready in time.

    The same error is raised if a program that prepares a server, such as ``initdb``, fails or takes too long.
    """

    error_code = "LOCAL_SERVER_DID_NOT_START"

    def __init__(self, *, server: str, what: str, log: Path, tail: str) -> None:
        super().__init__(
            f"{server} {what}. Correct the cause that the log shows, then try again. "
            f"Last lines of {log}:\n{tail or '(empty)'}"
        )


class ServerNotAvailable(LocalError):
    """Raised when the programs of a server are not installed and cannot be downloaded."""

    error_code = "LOCAL_SERVER_NOT_AVAILABLE"


class ChecksumMismatch(ServerNotAvailable):
    """Raised when the SHA-256 of a downloaded file is not the one in Relaybox's manifest."""

    error_code = "LOCAL_CHECKSUM_MISMATCH"

    def __init__(self, *, path: str, found: str, expected: str) -> None:
        super().__init__(
            f"{path} was downloaded with SHA-256 {found}, expected {expected}. The file was deleted. "
            "Check the mirror in ~/.m2/settings.xml or the proxy in use, then start again."
        )
