"""Commands that need no server: output and errors."""

import errno
import json
from importlib.metadata import version

import pytest
from relaybox.cli import app
from relaybox.db import BACKBONE, schema_script
from relaybox.http import SharedSecretVerifier
from relaybox.settings import JwtSettings, load_settings
from typer.testing import CliRunner, Result


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture
def jwt_settings(monkeypatch: pytest.MonkeyPatch) -> JwtSettings:
    monkeypatch.setenv("JWT_SECRET", "a secret of 32 bytes at the least")
    return load_settings(JwtSettings)


def test_version_option_prints_the_installed_version() -> None:
    result = run("--version")
    assert (result.exit_code, result.stdout.strip()) == (0, f"relaybox {version('relaybox')}")


async def test_token_prints_a_valid_token(jwt_settings: JwtSettings) -> None:
    result = run("token", "--sub", "ann")
    assert result.exit_code == 0
    principal = await SharedSecretVerifier(jwt_settings).verify(result.stdout.strip())
    assert principal.subject == "ann"


def test_token_as_json_has_its_time_to_live(jwt_settings: JwtSettings) -> None:
    output = json.loads(run("token", "--sub", "ann", "--ttl-s", "60", "--json").stdout)
    assert output["expires_in_s"] == 60
    assert output["token"].count(".") == 2


def test_token_refuses_an_invalid_subject(jwt_settings: JwtSettings) -> None:
    result = run("token", "--sub", "")
    assert result.exit_code == 2
    assert "printable" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("flow", "list", "a\udcff"), ("dead-letters", "discard", "1", "--by", "ann", "--reason", "\udcff")],
    ids=" ".join,
)
def test_argument_that_is_not_utf_8_is_refused(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "is not UTF-8" in result.stderr


def test_token_without_secret_names_the_setting() -> None:
    result = run("token", "--sub", "ann")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: JWT_SECRET: ")


def test_short_secret_is_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "hunter2")
    result = run("token", "--sub", "ann")
    assert result.exit_code == 1
    assert "hunter2" not in result.output


def test_each_malformed_setting_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_PORT", "many")
    monkeypatch.setenv("POSTGRES_POOL_SIZE", "0")
    result = run("migrate", "check")
    assert result.exit_code == 1
    assert [line.split(": ")[1] for line in result.stderr.splitlines()] == [
        "POSTGRES_PORT",
        "POSTGRES_POOL_SIZE",
    ]


@pytest.mark.parametrize("command", [("up",), ("down", "--yes"), ("check",)])
def test_migrate_without_postgresql_prints_one_line(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("POSTGRES_PORT", "1")
    result = run("migrate", *command)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "PostgreSQL cannot be reached at 127.0.0.1:1: Connection refused; check POSTGRES_HOST" in line


def test_unreadable_home_does_not_prevent_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/.postgresql/postgresql.key")

    # A home directory that this user may not enter; root may enter any directory.
    monkeypatch.setattr("asyncpg.connect_utils._dot_postgresql_path", deny)
    monkeypatch.setenv("POSTGRES_PORT", "1")
    result = run("migrate", "check")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "Connection refused" in line


def test_migrate_down_requires_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_HOST", "127.0.0.1")
    monkeypatch.setenv("POSTGRES_PORT", "1")
    result = run("migrate", "down")
    assert result.exit_code == 1
    assert "relaybox at 127.0.0.1:1" in result.stderr
    assert "--yes" in result.stderr


def test_migrate_sql_prints_the_schema() -> None:
    assert run("migrate", "sql").stdout == schema_script(BACKBONE)


def test_unexpected_exception_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.cli._migrate.schema_script", lambda *_lines, **_: 1 // 0)
    assert isinstance(run("migrate", "sql").exception, ZeroDivisionError)
