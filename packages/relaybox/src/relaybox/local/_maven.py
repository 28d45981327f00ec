"""Files of a Maven repository, each checked against a SHA-256 that is known beforehand.

A manifest has a line per file as ``sha256sum`` writes it, the path in the repository's standard layout
(``group/artifact/version/file``), so that ``sha256sum --check`` understands it too.
"""

import asyncio
import hashlib
import http.client
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import urlsplit
from xml.etree import ElementTree

from relaybox.local._errors import ChecksumMismatch, ServerNotAvailable

__all__ = ("PinnedFile", "fetch_pinned", "read_manifest", "repository_url")

#: The public default of every Maven client; a mirror of it is taken from the user's Maven settings.
CENTRAL: Final = "https://repo.maven.apache.org/maven2"
_PARALLEL_MAX: Final = 4
_FILE_BYTES_MAX: Final = 128 * 2**20
_CHUNK_BYTES: Final = 2**18
_TIMEOUT_S: Final = 30.0
#: Before the second attempt and each later one.
_PAUSES_S: Final = (0.2, 0.5, 1.0)
#: No download takes that long, so the process that began it was killed.
_LEFT_OVER_S: Final = 3_600
_MIRRORS_OF_CENTRAL: Final = frozenset({"*", "external:*", "central"})
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnedFile:
    """One file of a repository."""

    #: In the repository and in the cache.
    path: str
    #: Lower-case hexadecimal.
    sha256: str


def read_manifest(text: str) -> tuple[PinnedFile, ...]:
    """Read a manifest in the format of ``sha256sum``."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line)
    return tuple(PinnedFile(path=path.lstrip("*"), sha256=digest) for digest, path in lines)


def repository_url() -> str:
    """Return the mirror of Maven Central in ``~/.m2/settings.xml``, else Maven Central.

    The first ``<mirror>`` counts whose ``<mirrorOf>`` names ``central``, ``*`` or ``external:*``, as for
    Maven.

    Raises:
        ServerNotAvailable: The file is no XML.
    """
    path = Path("~/.m2/settings.xml")
    try:
        path = path.expanduser()
        settings = ElementTree.parse(path).getroot()  # noqa: S314 – the user's own file
    except (OSError, RuntimeError):  # no such file, or no home
        return CENTRAL
    except ElementTree.ParseError as error:
        raise ServerNotAvailable(f"{path} cannot be read: {error}. Correct it, or move it away.") from error
    for mirror in settings.iterfind("./{*}mirrors/{*}mirror"):
        patterns = {part.strip() for part in (mirror.findtext("{*}mirrorOf") or "").split(",")}
        url = (mirror.findtext("{*}url") or "").strip()
        if url and "!central" not in patterns and patterns & _MIRRORS_OF_CENTRAL:
            return url.rstrip("/")
    return CENTRAL


async def fetch_pinned(
    files: Sequence[PinnedFile], home: Path, *, on_start: Callable[[int], None], on_file: Callable[[], None]
) -> list[Path]:
    """Return *files* in *home*; those missing there, or damaged, are downloaded, four at a time.

    Args:
        files: What is needed.
        home: A cache in the repository's layout. Processes may share it: a file appears in it when it is
            complete and correct.
        on_start: Called with the number of files to download, unless there are none.
        on_file: Called after each download.

    Raises:
        ChecksumMismatch: The repository has another file than the manifest.
        ServerNotAvailable: A file cannot be downloaded or written.
    """
    missing = await asyncio.to_thread(_missing, files, home)
    if missing:
        on_start(len(missing))
        base, limit = repository_url(), asyncio.Semaphore(_PARALLEL_MAX)

        async def one(file: PinnedFile) -> None:
            async with limit:
                await _run_in_daemon_thread(lambda: _download(file, base, home))
            on_file()

        downloads = [asyncio.create_task(one(file)) for file in missing]
        try:
            await asyncio.gather(*downloads)
        finally:
            for download in downloads:
                download.cancel()
    return [home / file.path for file in files]


def _missing(files: Sequence[PinnedFile], home: Path) -> list[PinnedFile]:
    return [file for file in files if _sha256(home / file.path) != file.sha256]


def _sha256(path: Path) -> str | None:
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return None


def _download(file: PinnedFile, base: str, home: Path) -> None:
    """Download one file into *home*; a second attempt and later ones wait before.

    Raises:
        ChecksumMismatch: See :func:`fetch_pinned`.
        ServerNotAvailable: See :func:`fetch_pinned`.
    """
    target = home / file.path
    for pause_s in (*_PAUSES_S, None):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_left_over(target)
            return _download_once(file, base, target)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if pause_s is None or not _is_transient(error):
                where = urlsplit(base).hostname or base
                raise ServerNotAvailable(
                    f"{file.path} cannot be downloaded from {where} to {home}: {error}"
                ) from error
        threading.Event().wait(pause_s)
    raise AssertionError("the last attempt returns or raises")


def _is_transient(error: Exception) -> bool:
    """Whether another attempt may help: not for a file that the repository does not have."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # it holds the connection
        return error.code >= _SERVER_ERROR or error.code == _TOO_MANY
    return True


def _download_once(file: PinnedFile, base: str, target: Path) -> None:
    with tempfile.NamedTemporaryFile(
        dir=target.parent, prefix=f".{target.name}.", suffix=".part", delete=False
    ) as part:
        try:
            _copy(f"{base}/{file.path}", part)
            _require_digest(file, Path(part.name))
            Path(part.name).chmod(0o644)
            Path(part.name).replace(target)
        except BaseException:
            Path(part.name).unlink(missing_ok=True)
            raise


def _copy(url: str, part: IO[bytes]) -> None:
    # An opener of its own reads the proxy from the environment of now.
    with urllib.request.build_opener().open(url, timeout=_TIMEOUT_S) as response:
        while chunk := response.read(_CHUNK_BYTES):
            part.write(chunk)
            if part.tell() > _FILE_BYTES_MAX:
                break
    part.flush()
    announced = response.headers.get("Content-Length")
    if announced is not None and part.tell() < int(announced):
        raise http.client.IncompleteRead(b"", int(announced) - part.tell())


def _require_digest(file: PinnedFile, path: Path) -> None:
    found = _sha256(path) or "of a file that cannot be read"
    if found != file.sha256:
        raise ChecksumMismatch(path=file.path, found=found, expected=file.sha256)


def _remove_left_over(target: Path) -> None:
    """Remove what killed downloads of *target* left."""
    for part in target.parent.glob(f".{target.name}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _LEFT_OVER_S:
                part.unlink()


async def _run_in_daemon_thread(work: Callable[[], None]) -> None:
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
