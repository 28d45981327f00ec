"""`relaybox --help`: lazy imports, and help texts of the list of commands."""

import subprocess
import sys

from relaybox.cli import LazyGroup, app
from typer.main import get_command

PROGRAM = """
import sys
from relaybox.cli import app
try:
    app(["--help"], prog_name="relaybox")
except SystemExit as ended:
    assert not ended.code
heavy = ("alembic", "asyncpg", "confluent_kafka", "fastapi", "pydantic_settings", "sqlalchemy", "uvicorn")
print("loaded:", *(name for name in heavy if name in sys.modules))
"""


def test_help_imports_no_driver_and_no_framework() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert "migrate" in done.stdout
    assert done.stdout.splitlines()[-1].strip() == "loaded:"


def test_list_of_commands_has_the_help_of_each_command() -> None:
    group = get_command(app)
    assert isinstance(group, LazyGroup)
    for name in group.lazy:
        listed = group.commands[name].get_short_help_str(limit=200)
        group.load(name)
        assert group.commands[name].get_short_help_str(limit=200) == listed
