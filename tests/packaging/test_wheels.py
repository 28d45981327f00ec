"""Contents and metadata of the wheels."""

import email
import email.message
import re
import subprocess
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.packaging.conftest import PROJECTS, ROOT, Environment

VERSION = "0.1.0.dev0"
EXTRAS = {
    "relaybox-types": set[str](),
    "relaybox": {"http", "local", "prefect", "redis", "testing"},
    "relaybox-shared-types": set[str](),
    "relaybox-backend": {"local", "llm", "chess"},
}
SOURCES = {
    "relaybox-types": "relaybox_types",
    "relaybox": "relaybox",
    "relaybox-shared-types": "shared_types",
    "relaybox-backend": "backend",
}


#: What only the applications on the library may name.
APPLICATION_WORDS = re.compile(
    r"\b(backend|shared_types|genesis|novels?|muse|chess|pgn|chapters?)\b", re.IGNORECASE
)


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/METADATA")]
        return email.message_from_bytes(archive.read(name))


@pytest.fixture(params=PROJECTS)
def project(request: pytest.FixtureRequest) -> str:
    return request.param


def test_wheel_has_every_file_of_its_package(project: str, wheels: dict[str, Path]) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "src"],
        cwd=PROJECTS[project],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    expected = {name.removeprefix("src/") for name in listed if (PROJECTS[project] / name).is_file()}
    held = {name for name in zipfile.ZipFile(wheels[project]).namelist() if ".dist-info/" not in name}
    assert held == expected
    assert f"{SOURCES[project]}/py.typed" in held


def test_wheels_have_sql_migrations_and_phrases(wheels: dict[str, Path]) -> None:
    library = zipfile.ZipFile(wheels["relaybox"]).namelist()
    backend = zipfile.ZipFile(wheels["relaybox-backend"]).namelist()
    assert {
        "relaybox/outbox/outbox.sql",
        "relaybox/db/migrations/versions/0001_backbone.up.sql",
        "relaybox/db/migrations/versions/0002_idempotency.up.sql",
        "relaybox/local/roles.psql",
    } <= set(library)
    assert {
        "backend/migrations/versions/0001_genesis.up.sql",
        "backend/genesis/muse/phrases/zh/words.toml",
        "backend/genesis/muse/prompts/system.md",
    } <= set(backend)


def test_wheel_has_its_metadata(project: str, wheels: dict[str, Path]) -> None:
    metadata = metadata_of(wheels[project])
    assert (metadata["Name"], metadata["Version"]) == (project, VERSION)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["Summary"]
    assert metadata["Keywords"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert set(metadata.get_all("Provides-Extra") or []) == EXTRAS[project]
    classifiers = metadata.get_all("Classifier") or []
    assert {"Typing :: Typed", "Intended Audience :: Developers"} <= set(classifiers)
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13)} <= set(classifiers)


def test_wheel_has_licence_and_readme(project: str, wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels[project]) as archive:
        (licence,) = [one for one in archive.namelist() if one.endswith("/licenses/LICENSE")]
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()
    page = metadata_of(wheels[project]).get_payload()
    assert page == (PROJECTS[project] / "README.md").read_text(encoding="utf-8")


def test_wheel_of_the_library_has_its_pytest_plugin(wheels: dict[str, Path]) -> None:
    with zipfile.ZipFile(wheels["relaybox"]) as archive:
        (name,) = [one for one in archive.namelist() if one.endswith(".dist-info/entry_points.txt")]
        assert "[pytest11]\nrelaybox = relaybox.pytest_plugin\n" in archive.read(name).decode()


def test_packages_require_each_other_in_their_version(wheels: dict[str, Path]) -> None:
    for wheel in wheels.values():
        wanted = [Requirement(text) for text in metadata_of(wheel).get_all("Requires-Dist") or []]
        own = [one for one in wanted if one.name in PROJECTS]
        assert all(str(one.specifier) == f"=={VERSION}" for one in own)


def test_library_installs_no_novel_or_chess_types(wheels: dict[str, Path]) -> None:
    wanted, found = ["relaybox"], set[str]()
    while wanted:
        found.add(name := wanted.pop())
        required = {
            Requirement(text).name for text in metadata_of(wheels[name]).get_all("Requires-Dist") or []
        }
        assert "chess" not in required
        wanted += sorted(required & PROJECTS.keys() - found)
    assert found == {"relaybox", "relaybox-types"}
    for name in found:
        with zipfile.ZipFile(wheels[name]) as archive:
            for file in archive.namelist():
                if file.endswith((".py", ".sql")):
                    words = APPLICATION_WORDS.findall(archive.read(file).decode())
                    assert not words, f"{file} names {sorted(set(words))}"


def test_installed_packages_are_the_wheels(environment: Environment) -> None:
    show = "import sys; [print(__import__(name).__file__) for name in sys.argv[1:]]"
    found = environment.run("python", "-c", show, *SOURCES.values(), cwd=environment.directory).split()
    assert all(Path(one).is_relative_to(environment.directory) for one in found)


def test_console_scripts_run(environment: Environment) -> None:
    assert environment.run("relaybox", "--version", cwd=environment.directory) == f"relaybox {VERSION}\n"
    assert "migrate" in environment.run("backend", "--help", cwd=environment.directory)


def test_installed_packages_have_the_schema(environment: Environment) -> None:
    assert "CREATE TABLE event_outbox" in environment.run(
        "relaybox", "migrate", "sql", cwd=environment.directory
    )
    assert "CREATE TABLE genesis_sessions" in environment.run(
        "backend", "migrate", "sql", cwd=environment.directory
    )
