"""The init files of the database image, run as that image runs them, on a real PostgreSQL."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from backend.cli import app
from backend.genesis import genesis
from pydantic import SecretStr
from relaybox.commands import Caller, CommandService, Request
from relaybox.db import Database
from relaybox.local import LocalPostgres
from relaybox.local._postgres_programs import programs
from relaybox.outbox import Notifier
from relaybox.settings import PostgresSettings
from typer.testing import CliRunner

from tests.fixtures.servers import run_apart

INIT = Path(__file__).parents[2] / "infrastructure/docker/init/postgres"
WRITER = Caller(actor="writer", source_service="api-gateway")


def psql(server: LocalPostgres, *words: str, database: str = "postgres", **environment: str) -> None:
    subprocess.run(
        [programs(server.version, None) / "psql", "-v", "ON_ERROR_STOP=1", "--no-psqlrc", "--quiet", *words],
        env={
            "PGHOST": server.host,
            "PGPORT": str(server.port),
            "PGUSER": server.superuser,
            "PGPASSWORD": server.superuser_password,
            "PGDATABASE": database,
            **environment,
        },
        check=True,
        capture_output=True,
    )


@pytest.fixture
def container_database(postgres_server: LocalPostgres) -> Iterator[PostgresSettings]:
    """What the services of the compose file find: roles and database of this test's own."""
    mark = uuid.uuid4().hex[:8]
    settings = PostgresSettings(
        host=postgres_server.host,
        port=postgres_server.port,
        db=f"container_{mark}",
        user=f"service_{mark}",
        password=SecretStr("it's a 'secret'"),
        owner_user=f"owner_{mark}",
        owner_password=SecretStr("another $secret"),
    )
    psql(postgres_server, "--command", f"CREATE DATABASE {settings.db}")
    owner = settings.as_owner()
    for script in sorted(INIT.iterdir()):
        psql(
            postgres_server,
            "--file",
            str(script),
            database=settings.db,
            OWNER_USER=owner.user,
            OWNER_PASSWORD=owner.password.get_secret_value(),
            SERVICE_USER=settings.user,
            SERVICE_PASSWORD=settings.password.get_secret_value(),
        )
    yield settings
    psql(postgres_server, "--command", f"DROP DATABASE {settings.db} WITH (FORCE)")
    psql(postgres_server, "--command", f"DROP ROLE {settings.user}, {owner.user}")


def migrate(settings: PostgresSettings, word: str) -> str:
    owner = settings.as_owner()
    environment = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password.get_secret_value(),
        "POSTGRES_OWNER_USER": owner.user,
        "POSTGRES_OWNER_PASSWORD": owner.password.get_secret_value(),
    }
    result = CliRunner().invoke(app, ["migrate", word], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def test_the_files_leave_nothing_to_migrate_now_and_the_owner_able_to_later(
    container_database: PostgresSettings,
) -> None:
    assert "up to date" in migrate(container_database, "check")
    assert "nothing to apply" in migrate(container_database, "up")
    run_apart(_add_a_column(container_database.as_owner()))


async def _add_a_column(owner: PostgresSettings) -> None:
    database = Database(owner)
    async with database.connection() as connection:
        await connection.fetch("ALTER TABLE domain_events ADD COLUMN later INT")
        await connection.fetch("ALTER TABLE genesis_sessions ADD COLUMN later INT")
    await database.close()


async def test_the_services_role_takes_commands_and_cannot_change_events(
    container_database: PostgresSettings,
) -> None:
    database = Database(container_database)
    commands = CommandService(database, [genesis], notifier=Notifier(database), source_service="api-gateway")
    request = Request(
        aggregate_id=uuid.uuid4(), command_type="CreateSession", payload={}, creates=True, caller=WRITER
    )
    assert (await commands.submit(request, domain=genesis)).status == "COMPLETED"
    await commands.close()
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT count(*) AS events FROM domain_events")
        assert row["events"] == 1
        for statement in ("UPDATE domain_events SET payload = NULL", "TRUNCATE domain_events"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(statement)
    await database.close()


async def test_the_superuser_is_itself_again(
    container_database: PostgresSettings, postgres_server: LocalPostgres
) -> None:
    connection = await asyncpg.connect(
        host=postgres_server.host,
        port=postgres_server.port,
        user=postgres_server.superuser,
        password=postgres_server.superuser_password,
        database=container_database.db,
    )
    assert await connection.fetchval("SELECT current_user") == postgres_server.superuser
    await connection.close()
