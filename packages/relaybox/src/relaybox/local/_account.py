"""The account PostgreSQL runs under when we are root, and where that account can get at its files.

PostgreSQL refuses to run as root. An unprivileged account that exists everywhere does; none is created.
It cannot enter a closed home directory, so for a clone in there data and programs live elsewhere.
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
_POINTER = "moved-to"


@dataclass(frozen=True, kw_only=True)
class Account:
    """An existing account of the system other than root."""

    name: str
    uid: int
    gid: int

    def can_enter(self, path: Path) -> bool:
        """Tell whether the account may traverse *path* and all above it; missing parts do not count."""
        path = path.resolve()
        return all(self._may_traverse(each) for each in (path, *path.parents) if each.exists())

    def _may_traverse(self, directory: Path) -> bool:
        found = directory.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def server_account() -> Account | None:
    """Find the account a server must run under: None for our own, an unprivileged one if we are root.

    Raises:
        LocalError: we are root and none of the usual accounts exists.
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
        "Run as another user, or set POSTGRES_HOST to a server of your own."
    )


def make_directory(path: Path, *, mode: int) -> None:
    """Make *path* with *mode*, whatever the umask; an existing one must be ours to write.

    Raises:
        DataDirectoryNotUsable: it cannot be made or written.
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
    """Find where the data of *data_dir* really is: itself, unless *account* cannot get there.

    Then a directory of ours under ``/var/tmp``, remembered in ``data_dir/moved-to``: the name is random, so
    that nobody can wait for us there, and removing *data_dir* makes a new start.

    Raises:
        DataDirectoryNotUsable: a directory cannot be made or written, or the remembered one is not ours.
    """
    make_directory(data_dir, mode=0o755)
    if account is None or account.can_enter(data_dir):
        return data_dir
    pointer = data_dir / _POINTER
    place = Path(pointer.read_text().strip()) if pointer.exists() else None
    if place is None:
        place = shared_temp_dir() / f"relaybox-{secrets.token_hex(8)}"
        pointer.write_text(f"{place}\n")
    make_directory(place, mode=0o755)
    require_owned_directory(place)
    _log.info(
        "%s cannot be entered by the account %s, which runs PostgreSQL for root: the data is in %s",
        data_dir,
        account.name,
        place,
    )
    return place


def shared_temp_dir() -> Path:
    """Return a directory any account can enter and that survives a reboot where the system has one."""
    kept = Path("/var/tmp")  # noqa: S108 – only random or checked names are used in it
    return kept if os.access(kept, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def require_owned_directory(path: Path) -> None:
    """Check that *path* is a directory of this user, not a link, and closed to the writing of others.

    Raises:
        DataDirectoryNotUsable: somebody else made it or may write into it.
    """
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise DataDirectoryNotUsable(path=path, reason="it belongs to, or can be written by, somebody else")


def copy_world_readable(source: Path, target: Path) -> None:
    """Copy a tree so that any account can read and run it; *target* must not exist.

    A copy, not links: the modes are widened, and those of the installed package are not ours to change.
    """
    shutil.copytree(source, target, symlinks=True)
    for each in (target, *target.rglob("*")):
        if not each.is_symlink():
            mode = each.stat().st_mode
            runnable = each.is_dir() or mode & stat.S_IXUSR
            each.chmod(0o755 if runnable else 0o644)
