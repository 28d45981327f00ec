"""Start a temporary product for the demo if no product runs."""

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

__all__ = ("temporary_product",)

#: Seconds for the start, which downloads Kafka if it is not cached.
_READY_S: Final = 180.0
_STOP_S: Final = 15.0
_PAUSE_S: Final = 0.1
_TAIL_LINES: Final = 15
_RUN: Final = "from backend.cli import app; app(['run'])"


@asynccontextmanager
async def temporary_product(settings: ProductSettings) -> AsyncGenerator[Mapping[str, str]]:
    """Start a product on a free port with an empty data directory; at the end stop it and delete the data.

    Yields:
        The environment variables with which programs use the product.

    Raises:
        StepMissed: The product did not become ready; the message has the last lines of its log.
    """
    directory = _make_directory(settings.data_dir.parent)
    settings = ProductSettings(data_dir=directory / "data")
    changes = {"RELAYBOX_DATA_DIR": str(settings.data_dir), "API_PORT": str(free_port())}
    # MUSE_PACE_S: the offline generator of proposals waits before each step, so that its progress can be
    # shown.
    environment = {"MUSE_PACE_S": "0.1", **os.environ, **changes}
    log = directory / "log"
    try:
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _RUN, env=environment, stdout=output, stderr=output
            )
        try:
            yield await _wait_until_ready(settings, process, log)
        finally:
            await _stop(process)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _make_directory(parent: Path) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="demo-", dir=parent))
    directory.chmod(0o711)  # PostgreSQL, started as root, runs under another account and must read it
    return directory


async def _wait_until_ready(
    settings: ProductSettings, process: asyncio.subprocess.Process, log: Path
) -> Mapping[str, str]:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + _READY_S
    while process.returncode is None and loop.time() < deadline:
        try:
            return running_environment(settings)
        except NotRunning:
            await asyncio.sleep(_PAUSE_S)
    state = "is not ready" if process.returncode is None else f"ended with exit code {process.returncode}"
    raise StepMissed(f"the product started for the demo {state}. The last lines of its log:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        process.kill()
        await process.wait()
