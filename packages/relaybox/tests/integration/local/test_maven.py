"""Downloads from a Maven repository: verification, retries and the cache."""

import hashlib
import threading
from pathlib import Path

import pytest
from relaybox.local._errors import ServerNotAvailable
from relaybox.local._maven import PinnedFile, fetch_pinned, read_manifest, repository_url

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.repository import Respond, serving, write_maven_settings

CONTENT = {f"org/example/part-{number}/1.0/part-{number}-1.0.jar": b"%d" % number for number in range(8)}
MANIFEST = "".join(f"{hashlib.sha256(body).hexdigest()}  {path}\n" for path, body in CONTENT.items())


def body_of(path: str, _number: int = 0) -> bytes:
    return CONTENT[path.removeprefix("/maven2/")]


class Download:
    """A cache that is filled with the files of `MANIFEST` from a mirror."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.downloaded = 0

    async def run(self, respond: Respond) -> list[Path]:
        def count() -> None:
            self.downloaded += 1

        with serving(respond) as url:
            write_maven_settings(self.place, url)
            files = read_manifest(MANIFEST)
            return await fetch_pinned(
                files, self.place / "cache", on_start=lambda _count: None, on_file=count
            )


@pytest.fixture
def download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Download:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Download(tmp_path)


async def test_download_is_repeated_after_a_server_error(download: Download) -> None:
    paths = await download.run(lambda path, number: 503 if number < 3 else body_of(path))
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())


async def test_download_is_reused_without_the_repository(download: Download) -> None:
    await download.run(body_of)
    paths = await download.run(lambda _path, _number: 404)
    assert [path.read_bytes() for path in paths] == list(CONTENT.values())
    assert download.downloaded == len(CONTENT)


async def test_damaged_file_in_the_cache_is_replaced(download: Download) -> None:
    paths = await download.run(body_of)
    paths[3].write_bytes(b"damaged")
    await download.run(body_of)
    assert paths[3].read_bytes() == b"3"
    assert download.downloaded == len(CONTENT) + 1


async def test_missing_file_is_requested_once_and_named(download: Download) -> None:
    asked: list[str] = []

    def respond(path: str, _number: int) -> bytes | int:
        asked.append(path)
        return 404 if "part-0" in path else body_of(path)

    with pytest.raises(
        ServerNotAvailable, match=r"part-0-1\.0\.jar cannot be downloaded from 127\.0\.0\.1 .*404"
    ):
        await download.run(respond)
    assert len([path for path in asked if "part-0" in path]) == 1


async def test_download_uses_at_most_four_connections(download: Download) -> None:
    lock, four_are_here = threading.Lock(), threading.Event()
    now, most = 0, 0

    def respond(path: str, _number: int) -> bytes:
        nonlocal now, most
        with lock:
            now, most = now + 1, max(most, now + 1)
            if now == 4:
                four_are_here.set()
        four_are_here.wait(WAIT_S)
        with lock:
            now -= 1
        return body_of(path)

    await download.run(respond)
    assert most == 4


@pytest.mark.parametrize(
    ("of", "is_used"),
    [("central", True), ("*", True), ("external:*", True), ("other,central", True), ("*,!central", False)],
)
def test_mirror_of_central_in_the_maven_settings_is_used(
    of: str, is_used: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_maven_settings(tmp_path, "https://mirror.example/maven/", of=of)
    assert (repository_url() == "https://mirror.example/maven") is is_used


def test_invalid_maven_settings_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text("<settings>")
    with pytest.raises(ServerNotAvailable, match=r"settings\.xml is not valid XML"):
        repository_url()


def test_manifest_has_the_format_of_sha256sum() -> None:
    assert read_manifest("ab12  a/b-1.jar\ncd34 *c/d-2.jar\n") == (
        PinnedFile(path="a/b-1.jar", sha256="ab12"),
        PinnedFile(path="c/d-2.jar", sha256="cd34"),
    )
