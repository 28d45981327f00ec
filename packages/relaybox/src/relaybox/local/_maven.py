"""Download files from a Maven repository, and verify the SHA-256 of each against a manifest.

A manifest is in the format of ``sha256sum``, with paths in the standard layout of a repository
(``group/artifact/version/file``), so that ``sha256sum --check`` can read it.
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

#: The default repository of Maven clients; the user's Maven settings may name a mirror of it.
CENTRAL: Final = "https://repo.maven.apache.org/maven2"
_PARALLEL_MAX: Final = 4
_FILE_BYTES_MAX: Final = 128 * 2**20
_CHUNK_BYTES: Final = 2**18
_TIMEOUT_S: Final = 30.0
#: Pauses in seconds before the second, third and fourth attempt to download a file.
_PAUSES_S: Final = (0.2, 0.5, 1.0)
#: A partial file that was not written for this time is the rest of a killed download.
_STALE_PART_S: Final = 3_600
_MIRRORS_OF_CENTRAL: Final = frozenset({"*", "external:*", "central"})
_SERVER_ERROR: Final = 500
_TOO_MANY: Final = 429


@dataclass(frozen=True, kw_only=True, slots=True)
class PinnedFile:
    """One file of a repository."""

    #: Path in the repository and in the cache.
    path: str
    #: In lower-case hexadecimal.
    sha256: str


def read_manifest(text: str) -> tuple[PinnedFile, ...]:
    """Read a manifest in the format of ``sha256sum``."""
    lines = (line.split(maxsplit=1) for line in text.splitlines() if line)
    return tuple(PinnedFile(path=path.lstrip("*"), sha256=digest) for digest, path in lines)


def repository_url() -> str:
    """Return the URL of the mirror that ``~/.m2/settings.xml`` names for Maven Central or of Maven Central.

    As in Maven, the mirror is the first ``<mirror>`` with ``central``, ``*`` or ``external:*`` in
    ``<mirrorOf>``, and without ``!central``.

    Raises:
        ServerNotAvailable: The file is not valid XML.
    """
    path = Path("~/.m2/settings.xml")
    try:
        path = path.expanduser()
        settings = ElementTree.parse(path).getroot()  # noqa: S314 – file of the user
    except (OSError, RuntimeError):  # no file, or no home directory
        return CENTRAL
    except ElementTree.ParseError as error:
        raise ServerNotAvailable(
            f"{path} is not valid XML: {error}. Correct the file, or move it away."
        ) from error
    for mirror in settings.iterfind("./{*}mirrors/{*}mirror"):
        patterns = {part.strip() for part in (mirror.findtext("{*}mirrorOf") or "").split(",")}
        url = (mirror.findtext("{*}url") or "").strip()
        if url and "!central" not in patterns and patterns & _MIRRORS_OF_CENTRAL:
            return url.rstrip("/")
    return CENTRAL


async def fetch_pinned(
    files: Sequence[PinnedFile], home: Path, *, on_start: Callable[[int], None], on_file: Callable[[], None]
) -> list[Path]:
    """Return the paths of *files* in *home*; download missing and damaged files, four at a time.

    Args:
        files: Files of the manifest.
        home: Cache in the layout of the repository. Several processes may share the cache, because a file is
            moved into the cache only when the file is complete and verified.
        on_start: Called before the downloads with the number of files to download; not called if there are
            none.
        on_file: Called after each downloaded file.

    Raises:
        ChecksumMismatch: The SHA-256 of a downloaded file is not the one in the manifest.
        ServerNotAvailable: A file cannot be downloaded or written, or ``~/.m2/settings.xml`` is not XML.
    """
    missing = await asyncio.to_thread(_missing, files, home)
    if missing:
        on_start(len(missing))
        base, limit = repository_url(), asyncio.Semaphore(_PARALLEL_MAX)

        async def download(file: PinnedFile) -> None:
            async with limit:
                await _run_in_daemon_thread(lambda: _download(file, base, home))
            on_file()

        downloads = [asyncio.create_task(download(file)) for file in missing]
        try:
            await asyncio.gather(*downloads)
        finally:
            for task in downloads:
                task.cancel()
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
    """Download one file from the repository with the URL *base* into *home*.

    After an error that may be temporary, the download is repeated, up to four attempts in total.

    Raises:
        ChecksumMismatch: The SHA-256 of the downloaded file is not ``file.sha256``.
        ServerNotAvailable: The last attempt failed.
    """
    target = home / file.path
    for pause_s in (*_PAUSES_S, None):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            _remove_stale_parts(target)
            return _download_once(file, base, target)
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            if pause_s is None or not _is_transient(error):
                where = urlsplit(base).hostname or base
                # Errors of files have the name of the file; errors of connections have none.
                local = not isinstance(error, urllib.error.URLError) and getattr(error, "filename", None)
                failed = f"written to {home}" if local else f"downloaded from {where} to {home}"
                raise ServerNotAvailable(f"{file.path} cannot be {failed}: {error}") from error
        threading.Event().wait(pause_s)
    raise AssertionError("unreachable: the loop returns or raises in its last attempt")


def _is_transient(error: Exception) -> bool:
    """Return whether another attempt may succeed: False after an HTTP status other than 429 and 5xx."""
    if isinstance(error, urllib.error.HTTPError):
        error.close()  # the error holds the connection
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
    # A new opener reads the proxy settings from the current environment.
    with urllib.request.build_opener().open(url, timeout=_TIMEOUT_S) as response:
        while chunk := response.read(_CHUNK_BYTES):
            part.write(chunk)
            if part.tell() > _FILE_BYTES_MAX:
                break
    part.flush()
    expected = response.headers.get("Content-Length")
    if expected is not None and part.tell() < int(expected):
        raise http.client.IncompleteRead(b"", int(expected) - part.tell())


def _require_digest(file: PinnedFile, path: Path) -> None:
    found = _sha256(path) or "(unreadable file)"
    if found != file.sha256:
        raise ChecksumMismatch(path=file.path, found=found, expected=file.sha256)


def _remove_stale_parts(target: Path) -> None:
    """Remove partial files of *target* that no download has changed for an hour: their process was killed."""
    for part in target.parent.glob(f".{target.name}.*.part"):
        with suppress(OSError):
            if time.time() - part.stat().st_mtime > _STALE_PART_S:
                part.unlink()


async def _run_in_daemon_thread(work: Callable[[], None]) -> None:
    """Run *work* in a daemon thread, which, unlike ``asyncio.to_thread``, does not delay program exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def set_result(error: Exception | None) -> None:
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
        except Exception as caught:  # noqa: BLE001 – raised to the awaiting task
            error = caught
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(set_result, error)

    threading.Thread(target=run, name="relaybox-download", daemon=True).start()
    await done
