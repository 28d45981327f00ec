"""The init files of the database container, run as in the container, on a real PostgreSQL."""

import uuid
from collections.abc import Iterator

import asyncpg
import pytest
from backend.cli import app
from backend.genesis import genesis
from relaybox.commands import Caller, Command, CommandService
from relaybox.db import Database
from relaybox.local import LocalPostgres
from relaybox.outbox import Notifier
from relaybox.settings import PostgresSettings
from relaybox.testing import run_in_own_loop
from typer.testing import CliRunner

from tests.fixtures.container_database import container_database as made_by_the_init_files

WRITER = Caller(actor="writer", source_service="api-gateway")


@pytest.fixture(params=["public", "shop"])
def container_database(
    postgres_server: LocalPostgres, request: pytest.FixtureRequest
) -> Iterator[PostgresSettings]:
    """Create the database of the compose file, for each POSTGRES_SCHEMA."""
    with made_by_the_init_files(postgres_server, request.param) as settings:
        yield settings


def migrate(settings: PostgresSettings, word: str) -> str:
    owner = settings.as_owner()
    environment = {
        "POSTGRES_HOST": settings.host,
        "POSTGRES_PORT": str(settings.port),
        "POSTGRES_DB": settings.db,
        "POSTGRES_SCHEMA": settings.schema_name,
        "POSTGRES_USER": settings.user,
        "POSTGRES_PASSWORD": settings.password.get_secret_value(),
        "POSTGRES_OWNER_USER": owner.user,
        "POSTGRES_OWNER_PASSWORD": owner.password.get_secret_value(),
    }
    result = CliRunner().invoke(app, ["migrate", word], env=environment)
    assert result.exit_code == 0, result.output
    return result.output


def test_init_files_leave_no_pending_migration(
    container_database: PostgresSettings,
) -> None:
    assert "up to date" in migrate(container_database, "check")
    assert "nothing to apply" in migrate(container_database, "up")
    run_in_own_loop(_add_a_column(container_database.as_owner()))


async def _add_a_column(owner: PostgresSettings) -> None:
    database = Database(owner)
    async with database.connection() as connection:
        await connection.fetch("ALTER TABLE domain_events ADD COLUMN later INT")
        await connection.fetch("ALTER TABLE genesis_sessions ADD COLUMN later INT")
    await database.close()


async def test_role_of_services_cannot_change_events(
    container_database: PostgresSettings,
) -> None:
    database = Database(container_database)
    commands = CommandService(database, [genesis], notifier=Notifier(database), source_service="api-gateway")
    request = Command(
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


async def test_superuser_role_is_reset(
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
    assert await connection.fetchval("SHOW search_path") == '"$user", public'
    await connection.close()
