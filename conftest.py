"""What every test of the workspace starts from: a clean environment, and servers on demand."""

import os
from collections.abc import Generator

import pytest
import structlog

pytest_plugins = ["tests.fixtures.servers", "tests.fixtures.secured", "tests.fixtures.redis_server"]

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
    "IDEMPOTENCY_",
    "RELAYBOX_DATA",
    "WORKSPACE_",
)
#: What says which servers the suite itself starts is not the product's.
_SUITE = ("KAFKA_VERSION",)

# A developer's shell may point at a running product: no test may ever touch that one's data.
for _name in [name for name in os.environ if name.startswith(_PRODUCT) and name not in _SUITE]:
    del os.environ[_name]
# Nor is what `make test` tells its own children any business of a `make` that a test starts.
for _name in ("SERVICE_TYPE", "CORS_ORIGINS", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"):
    os.environ.pop(_name, None)

# Brokers of tests live for minutes: the time that compiling for speed takes never comes back.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


def _log_as_at_first() -> None:
    """As structlog does by itself, but plain: its tracebacks take seconds each to draw."""
    structlog.reset_defaults()
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])


_log_as_at_first()


@pytest.fixture(autouse=True)
def _the_log_is_nobodys() -> Generator[None]:
    """A test that makes a whole application configures the log; the next one must not inherit it."""
    yield
    _log_as_at_first()
