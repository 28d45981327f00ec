"""Migrations up and down, and the SQL file for containers, which gives the same schema."""

from pathlib import Path

import asyncpg
import pytest
from backend.migrations import ALL, BACKEND
from relaybox.db import (
    BACKBONE,
    Database,
    Migrations,
    migrate_down,
    migrate_up,
    pending_migrations,
    schema_script,
)
from relaybox.local import LocalPostgres
from relaybox.settings import PostgresSettings

from tests.fixtures.both_postgres import dump_schema

SQL_FILE = Path(__file__).parents[4] / "infrastructure/docker/init/postgres/20-migration-event-sourcing.sql"


def revisions_of(line: Migrations) -> list[str]:
    """Return the revisions of a branch, oldest first."""
    return [one.revision for one in line.script().walk_revisions()][::-1]


REVISIONS = [*revisions_of(BACKBONE), *revisions_of(BACKEND)]


async def run(settings: PostgresSettings, script: str) -> None:
    owner = settings.as_owner()
    connection = await asyncpg.connect(
        host=owner.host,
        port=owner.port,
        user=owner.user,
        password=owner.password.get_secret_value(),
        database=owner.db,
    )
    try:
        await connection.execute(script)
    finally:
        await connection.close()


def test_container_sql_file_is_up_to_date() -> None:
    again = "it is old: run `backend migrate sql` into it"
    assert SQL_FILE.read_text(encoding="utf-8") == schema_script(*ALL), again


async def test_container_sql_file_and_migrations_give_equal_schemas(
    postgres_server: LocalPostgres,
    postgres_settings: PostgresSettings,
    empty_postgres_settings: PostgresSettings,
) -> None:
    await run(empty_postgres_settings, SQL_FILE.read_text(encoding="utf-8"))
    # No revision is left to apply: the file fills the version tables. Every run grants the rights again.
    assert await migrate_up(empty_postgres_settings, *ALL) == []
    made = dump_schema(postgres_server, empty_postgres_settings)
    assert made == dump_schema(postgres_server, postgres_settings)
    assert "CREATE TABLE public.genesis_sessions" in made


async def test_up_down_up_gives_the_same_schema(
    postgres_server: LocalPostgres, empty_postgres_settings: PostgresSettings
) -> None:
    settings = empty_postgres_settings
    assert await migrate_up(settings, *ALL) == REVISIONS
    first = dump_schema(postgres_server, settings)
    assert await migrate_down(settings, BACKEND) == revisions_of(BACKEND)
    assert await migrate_down(settings, BACKBONE) == revisions_of(BACKBONE)
    assert await migrate_up(settings, *ALL) == REVISIONS
    assert dump_schema(postgres_server, settings) == first


async def test_down_leaves_only_the_version_tables(empty_postgres_settings: PostgresSettings) -> None:
    await migrate_up(empty_postgres_settings, *ALL)
    for line in reversed(ALL):
        await migrate_down(empty_postgres_settings, line)
    database = Database(empty_postgres_settings.as_owner())
    async with database.connection() as connection:
        left = await connection.fetch(
            "SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind = 'r'"
            " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
            " UNION ALL SELECT typname FROM pg_type WHERE typnamespace = 'public'::regnamespace"
            " AND typtype = 'e' ORDER BY 1"
        )
    await database.close()
    assert [row["name"] for row in left] == ["backend_alembic_version", "relaybox_alembic_version"]


async def test_library_migrations_create_no_genesis_table(
    empty_postgres_settings: PostgresSettings,
) -> None:
    await migrate_up(empty_postgres_settings, BACKBONE)
    database = Database(empty_postgres_settings)
    assert await pending_migrations(database, BACKBONE) == []
    assert await pending_migrations(database, *ALL) == revisions_of(BACKEND)
    await database.close()


async def test_service_role_can_write_sessions_but_not_the_schema(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch("INSERT INTO genesis_sessions (user_id) VALUES ('writer')")
        await connection.fetch("UPDATE genesis_sessions SET version = 2")
        await connection.fetch("DELETE FROM genesis_sessions")
        for statement in (
            "DROP TABLE genesis_sessions",
            "ALTER TABLE genesis_sessions DROP COLUMN draft",
            "TRUNCATE genesis_sessions",
            "SELECT backend_grant('postgres')",
            "UPDATE backend_alembic_version SET version_num = 'x'",
            "CREATE TABLE mine ()",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.fetch(statement)


async def test_updated_at_changes_with_every_update(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch("INSERT INTO genesis_sessions (user_id) VALUES ('writer')")
        [row] = await connection.fetch(
            "UPDATE genesis_sessions SET version = 2, updated_at = 'epoch' RETURNING updated_at, now() AS now"
        )
    assert row["updated_at"] == row["now"]
