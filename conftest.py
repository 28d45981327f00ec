"""Set up every test session: a clean environment, servers on demand, coverage and test scheduling."""

import gc
import json
import os
import signal
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import HealthCheck, settings
from xdist.scheduler import LoadScopeScheduling

from tests.fixtures.bounds import CONNECT_S

if TYPE_CHECKING:
    from relaybox.local import LocalKafka, LocalPostgres

# No limits of time: on a busy machine they fail tests that are correct.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.tls_servers",
    "tests.fixtures.redis_server",
    "tests.fixtures.pgbouncer",
]

_PRODUCT = (
    "POSTGRES_",
    "KAFKA_",
    "JWT_",
    "RELAY_",
    "TASK_",
    "API_",
    "MUSE",
    "OUTBOX_",
    "RETENTION_",
    "IDEMPOTENCY_",
    "LOG_",
    "HEALTH_",
    "DEAD_LETTER_",
    "RELAYBOX_DATA",
    "WORKSPACE_",
    "PREFECT_",
)
#: Variables that configure the tests, not the product; they are kept.
_SUITE = ("KAFKA_VERSION",)

# A developer's shell may point at a running product; tests must never touch its data.
for _name in [name for name in os.environ if name.startswith(_PRODUCT) and name not in _SUITE]:
    del os.environ[_name]
# A `make` that a test starts must not inherit the flags of `make test`.
for _name in ("SERVICE_TYPE", "CORS_ORIGINS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(_name, None)

# For connections of the tests, and of the processes that they start.
os.environ["POSTGRES_CONNECT_TIMEOUT_S"] = str(CONNECT_S)

# A shell starts a background job with SIGINT ignored, and child processes inherit this. Tests send SIGINT to
# them.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Brokers of tests live for minutes: optimising compilation costs more time than it saves.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


_ROOT = Path(__file__).parent
_WORKER = os.environ.get("PYTEST_XDIST_WORKER")
#: Directory for the coverage data; None to measure nothing. Only worker processes of pytest-xdist are
#: measured.
_COVERAGE_DIR = os.environ.pop("COVERAGE_DIR", None) if _WORKER else None
#: Directories whose coverage is measured; each has its own minimum, see the Makefile.
_MEASURED = ("packages", "apps")
_EXCLUDED = [r"assert_never\(", r"\.\.\.$"]
#: Setting of SlipCover: never remove probes that were reached, because that replaces functions while they
#: run.
_NEVER = -1


def _coverage() -> Any:
    """Measure coverage of our modules that this process imports from now on, by probes in their bytecode.

    coverage.py, which traces in Python 3.11, doubled the CPU time of the tests.
    """
    from slipcover.importer import FileMatcher, ImportManager
    from slipcover.slipcover import Slipcover

    sources = [str(path) for part in _MEASURED for path in sorted(Path(part).glob("*/src"))]
    coverage = Slipcover(d_miss_threshold=_NEVER, branch=True, source=sources, exclude_also=_EXCLUDED)
    ImportManager(coverage, FileMatcher(sources=sources)).__enter__()
    return coverage


_COVERAGE = _coverage() if _COVERAGE_DIR else None


def pytest_configure(config: pytest.Config) -> None:
    """Load the fixtures of the test kit, by an import that is measured."""
    from relaybox import pytest_plugin

    config.pluginmanager.register(pytest_plugin)


def pytest_sessionfinish() -> None:
    """Write the coverage data of this process to a file."""
    if _COVERAGE is None or _COVERAGE_DIR is None:
        return
    from slipcover.slipcover import add_summaries

    found = _COVERAGE.get_coverage()
    for part in _MEASURED:
        files = {name: file for name, file in found["files"].items() if name.startswith(f"{part}/")}
        measured = {"meta": found["meta"], "files": files}
        add_summaries(measured)
        Path(_COVERAGE_DIR, f"{part}.{_WORKER}.json").write_text(json.dumps(measured))


#: The tests that only `make test-slow` runs: killed processes, TLS, packages, outages, clusters.
_SLOW = (
    "tests/faults/",
    "tests/packaging/",
    "tests/acceptance/test_responses.py",
    "tests/acceptance/test_agent_down.py",
    "tests/acceptance/test_running.py",
    "tests/acceptance/test_tutorial.py",
    "tests/integration/test_alert_rules.py",
    "packages/relaybox/tests/integration/consumers/test_outages.py",
    "packages/relaybox/tests/integration/consumers/test_secured_link.py",
    "packages/relaybox/tests/integration/db/test_tls.py",
    "packages/relaybox/tests/integration/flows/test_prefect.py",
    "packages/relaybox/tests/integration/operations/test_consumer_rights.py",
    "packages/relaybox/tests/integration/relay/test_secured_link.py",
)
#: Folders whose files share a product or brokers that are started once: one process runs all files of a
#: folder.
_TOGETHER = ("tests/acceptance/", "tests/faults/cluster/", "tests/packaging/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests in `_SLOW` as slow."""
    for item in items:
        if item.path.relative_to(_ROOT).as_posix().startswith(_SLOW):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Exclude all objects that exist now from garbage collections, which would otherwise traverse them."""
    gc.collect()
    gc.freeze()


class FileScheduling(LoadScopeScheduling):
    """Let one test process run all tests of a file, or of a folder in `_TOGETHER`."""

    def _split_scope(self, nodeid: str) -> str:
        folder = next((each for each in _TOGETHER if nodeid.startswith(each)), None)
        return folder or nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> FileScheduling:
    """Distribute the tests among the processes of `pytest --numprocesses`."""
    return FileScheduling(config, log)


@pytest.fixture(scope="session")
def relaybox_postgres_server(postgres_server: "LocalPostgres") -> "LocalPostgres":
    """Let the fixtures of the test kit use the session's PostgreSQL."""
    return postgres_server


@pytest.fixture(scope="session")
def relaybox_kafka_server(kafka_server: "LocalKafka") -> "LocalKafka":
    """Let the fixtures of the test kit use the session's Kafka."""
    return kafka_server


def _reset_logging() -> None:
    """Restore structlog's defaults, but with plain tracebacks: rich takes seconds to render a traceback."""
    structlog.reset_defaults()
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


_reset_logging()


@pytest.fixture(autouse=True)
def _reset_logging_after_test() -> Generator[None]:
    """Reset logging after each test, because tests of whole applications configure logging."""
    yield
    _reset_logging()
