"""``relaybox migrate`` on a real PostgreSQL."""

import json
import os
import subprocess
import sys

import pytest
from relaybox.cli import app
from relaybox.db import BACKBONE
from relaybox.settings import PostgresSettings
from typer.testing import CliRunner, Result


def variables_of(settings: PostgresSettings) -> dict[str, str]:
    variables = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password.get_secret_value(),
    }
    if settings.owner_user is not None:
        variables["POSTGRES_OWNER_USER"] = settings.owner_user
    if settings.owner_password is not None:
        variables["POSTGRES_OWNER_PASSWORD"] = settings.owner_password.get_secret_value()
    return variables


def relaybox(settings: PostgresSettings, *arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env=variables_of(settings))


REVISIONS = [one.revision for one in BACKBONE.script().walk_revisions()][::-1]


def test_migrate_up_check_and_down(
    empty_postgres_settings: PostgresSettings,
) -> None:
    settings = empty_postgres_settings
    before = relaybox(settings, "migrate", "check")
    assert (before.exit_code, before.stdout) == (1, "".join(f"pending {one}\n" for one in REVISIONS))

    up = relaybox(settings, "migrate", "up", "--json")
    assert json.loads(up.stdout) == {"applied": REVISIONS}
    assert up.exit_code == 0
    assert relaybox(settings, "migrate", "check").exit_code == 0
    assert relaybox(settings, "migrate", "up").stdout == "nothing to apply: the schema is up to date\n"

    assert relaybox(settings, "migrate", "down").exit_code == 1
    assert relaybox(settings, "migrate", "check").exit_code == 0
    down = relaybox(settings, "migrate", "down", "--yes")
    assert down.stdout == "".join(f"removed {one}\n" for one in REVISIONS)
    check = relaybox(settings, "migrate", "check", "--json")
    assert json.loads(check.stdout) == {"pending": REVISIONS}


@pytest.mark.parametrize("one_role", [True, False])
def test_migrate_up_with_one_role_names_the_disadvantage(
    empty_postgres_settings: PostgresSettings, one_role: bool
) -> None:
    settings = empty_postgres_settings
    if one_role:
        settings = settings.as_owner().model_copy(update={"owner_user": None, "owner_password": None})
    up = relaybox(settings, "migrate", "up")
    assert up.exit_code == 0
    assert ("POSTGRES_OWNER_USER is not set" in up.stderr) is one_role


def test_refused_migration_is_one_line(empty_postgres_settings: PostgresSettings) -> None:
    as_service = empty_postgres_settings.model_copy(update={"owner_user": None, "owner_password": None})
    up = subprocess.run(
        [sys.executable, "-c", "from relaybox.cli import app; app()", "migrate", "up"],
        env=os.environ | variables_of(as_service),
        capture_output=True,
        text=True,
        check=False,
    )
    assert up.returncode == 1
    (line,) = up.stderr.splitlines()
    assert line.startswith("error: relaybox_alembic_version: ")
    assert "permission denied" in line
