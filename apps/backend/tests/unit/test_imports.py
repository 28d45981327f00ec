"""The imports of the backend's programs at start."""

import os
import re
import subprocess
import sys

import pytest

FRAMEWORKS = {"fastapi", "starlette", "uvicorn"}
HELP = """
import sys
from backend.cli import app
try:
    app(["--help"], prog_name="backend")
except SystemExit as ended:
    assert not ended.code
heavy = ("alembic", "asyncpg", "confluent_kafka", "fastapi", "pydantic_settings", "sqlalchemy", "uvicorn")
print("loaded:", *(name for name in heavy if name in sys.modules))
"""


def imported_by(service_type: str) -> set[str]:
    """Return the modules that a service has imported when it reads its settings, one of them invalid."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "backend"],
        env={**os.environ, "SERVICE_TYPE": service_type, "POSTGRES_PORT": "many"},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert "POSTGRES_PORT" in done.stderr
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))


def test_help_imports_no_driver_and_no_framework() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=True)
    assert "rebuild" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


@pytest.mark.parametrize(
    ("service_type", "unneeded"),
    [
        ("message-relay", {*FRAMEWORKS, "relaybox.commands", "backend.genesis", "backend.workspace"}),
        ("concept-agent", {*FRAMEWORKS, "relaybox.relay", "backend.workspace"}),
        ("workspace-worker", {"uvicorn", "relaybox.relay", "backend.genesis"}),
    ],
)
def test_service_imports_only_what_its_role_needs(service_type: str, unneeded: set[str]) -> None:
    assert not imported_by(service_type) & unneeded
