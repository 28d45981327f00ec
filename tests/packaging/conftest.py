"""Fixtures: the built wheels, and an environment without access to this clone."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECTS = {
    "relaybox-types": ROOT / "packages/types",
    "relaybox": ROOT / "packages/relaybox",
    "relaybox-shared-types": ROOT / "packages/shared-types",
    "relaybox-backend": ROOT / "apps/backend",
}
#: Time limit of a build or an installation on a busy machine.
_COMMAND_S = 120


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A new virtual environment."""

    directory: Path

    @property
    def python(self) -> Path:
        return self.directory / "bin" / "python"

    def variables(self) -> dict[str, str]:
        """Return the environment variables of its programs: its own directory is first in PATH."""
        return {
            "PATH": os.pathsep.join([str(self.directory / "bin"), os.environ["PATH"]]),
            "HOME": str(self.directory),
            "LANG": "C.UTF-8",
        }

    def run(self, *words: str, cwd: Path) -> str:
        """Run a program of the environment and return its output."""
        program = [str(self.directory / "bin" / words[0]), *words[1:]]
        return command(program, cwd=cwd, env=self.variables())


def command(words: Sequence[str], *, cwd: Path, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=_COMMAND_S
    )
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build the wheels from source distributions, as for a release; return them by project name."""
    target = tmp_path_factory.mktemp("wheels")

    def build(name: str) -> Path:
        directory = target / name
        words = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(directory)]
        command([*words, str(PROJECTS[name])], cwd=target)
        (wheel,) = directory.glob("*.whl")
        return wheel

    with ThreadPoolExecutor() as pool:
        return dict(zip(PROJECTS, pool.map(build, PROJECTS), strict=True))


@pytest.fixture(scope="session")
def environment(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Create an environment with only the four wheels and their locked dependencies."""
    environment = Environment(directory=tmp_path_factory.mktemp("installed") / "venv")
    # uv is in the directory of this interpreter, or in the first one of PATH.
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert uv is not None, "uv is one of the tools in requirements.lock: run make setup"
    command([uv, "venv", "--quiet", "--python", sys.executable, str(environment.directory)], cwd=ROOT)
    install = [uv, "pip", "install", "--quiet", "--python", str(environment.python)]
    constraints = ["--constraint", str(ROOT / "requirements.lock")]
    wanted = [
        str(wheels["relaybox-types"]),
        f"{wheels['relaybox']}[http]",
        str(wheels["relaybox-shared-types"]),
        str(wheels["relaybox-backend"]),
    ]
    command([*install, *constraints, *wanted], cwd=environment.directory)
    return environment
