"""A product of the demo's own, where none runs."""

import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from relaybox.local import free_port

from backend.demo._timeline import StepMissed
from backend.running import NotRunning, ProductSettings, running_environment

__all__ = ("own_product",)

#: With empty caches Kafka is fetched first.
_READY_S: Final = 180.0
_STOP_S: Final = 15.0
_PAUSE_S: Final = 0.1
_TAIL_LINES: Final = 15
_RUN: Final = "from backend.cli import app; app(['run'])"


@asynccontextmanager
async def own_product(settings: ProductSettings) -> AsyncGenerator[Mapping[str, str]]:
    """Start a product on a free port and new data beside the usual ones; stopped and removed at the end.

    Yields its environment.

    Raises:
        StepMissed: it did not become ready; holds its last lines.
    """
    home = _make_home(settings.data_dir.parent)
    own = ProductSettings(data_dir=home / "data")
    changes = {"RELAYBOX_DATA_DIR": str(own.data_dir), "API_PORT": str(free_port())}
    # A pace at which the agent can be watched.
    environment = {"MUSE_PACE_S": "0.1", **os.environ, **changes}
    log = home / "log"
    try:
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _RUN, env=environment, stdout=output, stderr=output
            )
        try:
            yield await _until_ready(own, process, log)
        finally:
            await _stopped(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _make_home(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix="demo-", dir=parent))
    home.chmod(0o711)  # as root, PostgreSQL runs under another account and must get in
    return home


async def _until_ready(
    own: ProductSettings, process: asyncio.subprocess.Process, log: Path
) -> Mapping[str, str]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_S
    while process.returncode is None and loop.time() < deadline:
        try:
            return running_environment(own)
        except NotRunning:
            await asyncio.sleep(_PAUSE_S)
    how = "is not ready" if process.returncode is None else f"ended with exit code {process.returncode}"
    raise StepMissed(f"the product started for the demo {how}. Its last lines:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


async def _stopped(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
