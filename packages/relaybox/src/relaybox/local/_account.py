"""Choose an account for PostgreSQL if the current user is root, and directories that this account can enter.

PostgreSQL refuses to run as root, so it runs under an existing unprivileged account. That account cannot
enter a home directory of mode 0700. If the data directory is in such a directory, the data is stored under
``/var/tmp``. If the programs of PostgreSQL are in such a directory, they are copied to ``/var/tmp``.
"""

import logging
import os
import pwd
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from relaybox.local._errors import DataDirectoryNotUsable, LocalError

_log = logging.getLogger(__name__)

_NAMES = ("nobody", "postgres", "daemon")
#: File in the data directory with the path of the directory that is used instead.
_POINTER = "moved-to"


@dataclass(frozen=True, kw_only=True)
class Account:
    """An existing account of the operating system, not root."""

    name: str
    uid: int
    gid: int

    def can_enter(self, path: Path) -> bool:
        """Return whether the account may enter *path* and its parents, as far as these directories exist."""
        path = path.resolve()
        return all(self._may_traverse(directory) for directory in (path, *path.parents) if directory.exists())

    def _may_traverse(self, directory: Path) -> bool:
        status = directory.stat()
        if status.st_uid == self.uid:
            return bool(status.st_mode & stat.S_IXUSR)
        if status.st_gid == self.gid:
            return bool(status.st_mode & stat.S_IXGRP)
        return bool(status.st_mode & stat.S_IXOTH)


def server_account() -> Account | None:
    """Return the account that runs PostgreSQL if the current user is root; None for any other user.

    The account is the first one of ``_NAMES`` that exists.

    Raises:
        LocalError: The current user is root, and none of these accounts exists.
    """
    if os.geteuid() != 0:
        return None
    for name in _NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise LocalError(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(_NAMES)} exists. "
        "Run this command as another user, or set POSTGRES_HOST to an existing server."
    )


def make_directory(path: Path, *, mode: int) -> None:
    """Create the directory *path* if it is missing, and set its mode to *mode*, independent of the umask.

    The mode of an existing directory changes only if the current user owns the directory.

    Raises:
        DataDirectoryNotUsable: The current user cannot create or enter *path*, or cannot write into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if path.stat().st_uid == os.geteuid():
            path.chmod(mode)
    except OSError as error:
        raise DataDirectoryNotUsable(path=path, reason=error.strerror or str(error)) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise DataDirectoryNotUsable(path=path, reason="no permission to write")


def resolve_data_dir(data_dir: Path, account: Account | None) -> Path:
    """Return *data_dir*, or a directory under ``/var/tmp`` if *account* cannot enter *data_dir*.

    The directory under ``/var/tmp`` is created at the first call, for the current user. Its name is random,
    so that no other user can create it first. Its path is stored in the file ``moved-to`` in *data_dir*, so
    that later calls return the same directory.

    Args:
        data_dir: The configured directory; created if it does not exist.
        account: The account that runs the server; None for the current user.

    Raises:
        DataDirectoryNotUsable: One of the directories cannot be created or written, or another user owns the
            directory under ``/var/tmp`` or may write into it.
    """
    make_directory(data_dir, mode=0o755)
    if account is None or account.can_enter(data_dir):
        return data_dir
    pointer = data_dir / _POINTER
    resolved = Path(pointer.read_text().strip()) if pointer.exists() else None
    if resolved is None:
        resolved = shared_temp_dir() / f"relaybox-{secrets.token_hex(8)}"
        pointer.write_text(f"{resolved}\n")
    make_directory(resolved, mode=0o755)
    require_owned_directory(resolved)
    _log.info(
        "data directory moved: account %s, which runs PostgreSQL for root, cannot enter %s; data is in %s",
        account.name,
        data_dir,
        resolved,
    )
    return resolved


def shared_temp_dir() -> Path:
    """Return ``/var/tmp``, which survives a reboot; if it is not writable, the temporary directory."""
    persistent = Path("/var/tmp")  # noqa: S108 – names in it are random or checked
    return persistent if os.access(persistent, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def require_owned_directory(path: Path) -> None:
    """Check that *path* is a directory that the current user owns, and that no other user may write into it.

    Raises:
        DataDirectoryNotUsable: *path* is a link or a file, another user owns it, or its mode gives write
            access to its group or to all users.
    """
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
        raise DataDirectoryNotUsable(
            path=path,
            reason="another user owns it or may write into it",
            remedy="Make this user its owner and run chmod go-w, or move it away (a new one is created)",
        )


def copy_world_readable(source: Path, target: Path) -> None:
    """Copy the tree *source* to *target*, which must not exist, so that every account can use the copy.

    Every account can read all files of the copy, and execute those that the owner of *source* can execute. A
    copy is made because the permissions of *source*, an installed package, must not change.
    """
    shutil.copytree(source, target, symlinks=True)
    for path in (target, *target.rglob("*")):
        if not path.is_symlink():
            executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
            path.chmod(0o755 if executable else 0o644)
