"""Apply migrations: Alembic revisions, each of which executes an SQL file as the owner of the tables."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from relaybox.db._connector import await_connection
from relaybox.db._database import Database
from relaybox.db._errors import DatabaseError, DatabaseUnavailable, map_database_errors
from relaybox.db._queries import load_queries
from relaybox.settings import PostgresSettings

__all__ = (
    "BACKBONE",
    "MigrationFailed",
    "Migrations",
    "migrate_down",
    "migrate_up",
    "pending_migrations",
    "run_sql_file",
    "schema_script",
)

_SQL: Final = load_queries(__package__ or "relaybox.db", "migrations.sql")


class MigrationFailed(DatabaseError):
    """Raised when a migration fails, or when the rights of the services' role cannot be granted afterwards.

    A migration that fails is rolled back. If only the rights cannot be granted, the migration stays applied.
    """

    error_code = "MIGRATION_FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Migrations:
    """A sequence of Alembic revisions with its own version table, such as that of the library.

    A schema may have several sequences, for example of the library and of an application.
    """

    #: Directory with ``env.py`` and ``versions/``.
    location: Path
    #: Name of Alembic's version table.
    version_table: str
    #: Statement that grants the role of the services, ``$1``, its rights on the tables of this sequence.
    grant: str

    def script(self) -> ScriptDirectory:
        """Return the revisions of the directory as Alembic's ScriptDirectory."""
        return ScriptDirectory.from_config(self.config())

    def config(self, **attributes: Any) -> Config:
        """Return an Alembic configuration that passes *attributes* to ``env.py``."""
        config = Config()
        config.set_main_option("script_location", str(self.location))
        config.set_main_option("path_separator", "os")
        config.attributes.update(attributes, version_table=self.version_table)
        return config


#: The migrations of the library's own tables.
BACKBONE: Final = Migrations(
    location=Path(__file__).parent / "migrations",
    version_table="relaybox_alembic_version",
    grant=_SQL["grant_service"],
)


async def migrate_up(settings: PostgresSettings, *migrations: Migrations) -> list[str]:
    """Apply all pending revisions as the owner of the tables, and grant the services their rights again.

    Creates ``POSTGRES_SCHEMA`` if it is missing. The revisions of one sequence are applied in one
    transaction, and the rights are granted in another one. Concurrent calls wait for each other, for at most
    60 s.

    Args:
        settings: Address of PostgreSQL, the role of the services, and the owner of the tables.
        migrations: The sequences of revisions, in the order in which they must be applied.

    Returns:
        The names of the applied revisions, oldest first; empty if none was pending.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be reached.
        MigrationFailed: A statement failed, the services' role does not exist, or the tables are in another
            schema and ``POSTGRES_SCHEMA`` is not set.
    """
    applied: list[str] = []
    engine = _owner(settings)
    try:
        for sequence in migrations:
            if "schema_name" not in settings.model_fields_set:
                await _refuse_tables_elsewhere(engine, sequence, settings.schema_name)
            applied += await _run(engine, sequence, command.upgrade, "head")
            await _grant(engine, sequence, settings)
    finally:
        await engine.dispose()
    return applied


async def migrate_down(settings: PostgresSettings, sequence: Migrations, revision: str = "base") -> list[str]:
    """Downgrade *sequence* to *revision*; ``base`` removes the tables and all their data.

    Returns:
        The names of the reverted revisions, oldest first; empty if none was applied.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be reached.
        MigrationFailed: The revision does not exist, or a statement failed.
    """
    engine = _owner(settings)
    try:
        return await _run(engine, sequence, command.downgrade, revision)
    finally:
        await engine.dispose()


async def pending_migrations(database: Database, *migrations: Migrations) -> list[str]:
    """Return the names of the revisions that *database* lacks, oldest first.

    Raises:
        DatabaseUnavailable: PostgreSQL cannot be reached.
        DatabaseBusy: No connection became free in time, or the server cancelled the query.
    """
    missing: list[str] = []
    async with _connected(database.engine) as connection:
        for sequence in migrations:
            at = await connection.run_sync(_heads, sequence.version_table)
            revisions = sequence.script().iterate_revisions("heads", at or "base")
            missing += [revision.revision for revision in revisions][::-1]
    return missing


def schema_script(*migrations: Migrations, schema: str = "public") -> str:
    """Return all migrations as one SQL script that also creates and fills the version tables.

    Args:
        migrations: The sequences of revisions, in the order in which they must be applied.
        schema: The schema to create and use, a name that needs no quotes. For ``public``, the script does not
            set the search_path, and creates the tables in the first schema of the session's search_path.
    """
    parts: list[str] = [
        "-- Generated from the Alembic migrations; a test compares it with them. Do not edit."
    ]
    if schema != "public":
        parts.append(f'CREATE SCHEMA IF NOT EXISTS "{schema}";\nSET search_path TO "{schema}";')
    for sequence in migrations:
        revisions = [revision.revision for revision in sequence.script().walk_revisions()][::-1]
        parts += [_up_file(sequence, revision).read_text(encoding="utf-8").strip() for revision in revisions]
        parts.append(
            f"CREATE TABLE {sequence.version_table} (\n"
            f"    version_num VARCHAR(32) NOT NULL,\n"
            f"    CONSTRAINT {sequence.version_table}_pkc PRIMARY KEY (version_num)\n);\n"
            f"INSERT INTO {sequence.version_table} (version_num) VALUES ('{revisions[-1]}');"
        )
    return "\n\n".join(parts) + "\n"


def run_sql_file(bind: Connection, file: Path) -> None:
    """Execute an SQL file in Alembic's transaction; called by ``upgrade()`` and ``downgrade()``."""
    script = file.read_text(encoding="utf-8")
    adapted: Any = bind.connection.dbapi_connection

    async def execute(driver: Any) -> None:
        await driver.execute(script)

    adapted.run_async(execute)


def _up_file(sequence: Migrations, revision: str) -> Path:
    return sequence.location / "versions" / f"{revision}.up.sql"


def _owner(settings: PostgresSettings) -> AsyncEngine:
    """Return an engine that connects as the owner of the tables, without pooler and statement timeout."""
    owner = (
        settings.direct().as_owner().model_copy(update={"statement_timeout_ms": 0, "lock_timeout_ms": 60_000})
    )
    return Database(owner, application_name="relaybox-migrate").engine


@asynccontextmanager
async def _connected(engine: AsyncEngine) -> AsyncGenerator[AsyncConnection]:
    with map_database_errors():
        connection = await await_connection(engine.connect().start(), engine.url)
        try:
            yield connection
        finally:
            await connection.close()


async def _run(engine: AsyncEngine, sequence: Migrations, action: Any, revision: str) -> list[str]:
    """Upgrade or downgrade to *revision*, and return the names of the changed revisions, oldest first.

    *action* is the function ``upgrade`` or ``downgrade`` of ``alembic.command``.
    """

    def run(connection: Connection) -> list[str]:
        before = _heads(connection, sequence.version_table)
        action(sequence.config(connection=connection), revision)
        after = _heads(connection, sequence.version_table)
        upper, lower = (after, before) if action is command.upgrade else (before, after)
        if upper == lower:
            return []
        return [
            step.revision for step in sequence.script().iterate_revisions(upper or "base", lower or "base")
        ][::-1]

    try:
        async with _connected(engine) as connection, connection.begin():
            await connection.exec_driver_sql(_SQL["lock_migrations"])
            if not (await connection.exec_driver_sql(_SQL["has_schema"])).scalar_one():
                if action is command.downgrade:
                    return []
                await connection.exec_driver_sql(_SQL["create_schema"])
            return await connection.run_sync(run)
    except DatabaseUnavailable:
        raise
    except Exception as error:
        raise MigrationFailed(
            f"{sequence.version_table}: the migration failed and was rolled back; correct the cause, then "
            f"migrate again: {error}"
        ) from error


async def _refuse_tables_elsewhere(engine: AsyncEngine, sequence: Migrations, schema: str) -> None:
    """Check that migrations would not create empty tables while another schema has the tables.

    Versions of Relaybox without POSTGRES_SCHEMA created the tables in the first schema of the role's
    search_path.

    Raises:
        MigrationFailed: Another schema has the version table, and *schema* does not.
    """
    async with _connected(engine) as connection:
        found = await connection.exec_driver_sql(_SQL["schemas_with_table"], (sequence.version_table,))
        if elsewhere := found.scalar():
            raise MigrationFailed(
                f"{sequence.version_table}: the tables are in another schema ({elsewhere}); set "
                f"POSTGRES_SCHEMA to that schema, or to {schema} to create new, empty tables there"
            )


async def _grant(engine: AsyncEngine, sequence: Migrations, settings: PostgresSettings) -> None:
    if settings.owner_user in (None, settings.user):
        return
    try:
        async with _connected(engine) as connection, connection.begin():
            await connection.exec_driver_sql(sequence.grant, (settings.user,))
    except SQLAlchemyError as error:
        raise MigrationFailed(
            f"{sequence.version_table}: the migrations are applied, but the rights on the tables cannot be "
            f"granted to {settings.user}; check that POSTGRES_USER is an existing role, then migrate again"
        ) from error


def _heads(connection: Connection, version_table: str) -> tuple[str, ...]:
    context = MigrationContext.configure(connection, opts={"version_table": version_table})
    return context.get_current_heads()
