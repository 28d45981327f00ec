"""Versioned schema: Alembic revisions whose content is SQL files, applied as the tables' owner."""

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
    """Raised when a schema cannot be brought to the wanted version; nothing of that step remains."""

    error_code = "MIGRATION_FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class Migrations:
    """One line of Alembic revisions, with a version table of its own so that lines live side by side."""

    #: Folder with ``env.py`` and ``versions/``.
    location: Path
    version_table: str
    #: Statement that gives ``$1``, the services' role, its rights on these tables.
    grant: str

    def script(self) -> ScriptDirectory:
        """Alembic's view of the folder."""
        return ScriptDirectory.from_config(self.config())

    def config(self, **attributes: Any) -> Config:
        """An Alembic configuration that hands *attributes* to ``env.py``."""
        config = Config()
        config.set_main_option("script_location", str(self.location))
        config.set_main_option("path_separator", "os")
        config.attributes.update(attributes, version_table=self.version_table)
        return config


BACKBONE: Final = Migrations(
    location=Path(__file__).parent / "migrations",
    version_table="relaybox_alembic_version",
    grant=_SQL["grant_service"],
)


async def migrate_up(settings: PostgresSettings, *lines: Migrations) -> list[str]:
    """Bring every line to its newest revision, as the owner, and renew the services' rights.

    Creates ``POSTGRES_SCHEMA`` when it is missing.

    Returns the revisions applied; running it again applies none. Two runs at once wait for
    each other. Each line is one transaction.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
        MigrationFailed: a statement was refused, the services' role does not exist, or the tables are in
            another schema and ``POSTGRES_SCHEMA`` is not set.
    """
    applied: list[str] = []
    engine = _owner(settings)
    try:
        for line in lines:
            if "schema_name" not in settings.model_fields_set:
                await _refuse_tables_elsewhere(engine, line, settings.schema_name)
            applied += await _run(engine, line, command.upgrade, "head")
            await _grant(engine, line, settings)
    finally:
        await engine.dispose()
    return applied


async def migrate_down(settings: PostgresSettings, line: Migrations, revision: str = "base") -> list[str]:
    """Take *line* back to *revision* (``base``: remove its tables and all their data).

    Raises:
        MigrationFailed: there is no such revision, or a statement was refused.
    """
    engine = _owner(settings)
    try:
        return await _run(engine, line, command.downgrade, revision)
    finally:
        await engine.dispose()


async def pending_migrations(database: Database, *lines: Migrations) -> list[str]:
    """The revisions that *database* still lacks, oldest first; empty when the code may run on it.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
        DatabaseBusy: no connection or answer in time.
    """
    missing: list[str] = []
    async with _connected(database.engine) as connection:
        for line in lines:
            at = await connection.run_sync(_heads, line.version_table)
            revisions = line.script().iterate_revisions("heads", at or "base")
            missing += [revision.revision for revision in revisions][::-1]
    return missing


def schema_script(*lines: Migrations, schema: str = "public") -> str:
    """All migrations as one SQL text for a container's first start, stamping the version tables.

    Args:
        lines: the lines of migrations, in the order in which they must be applied.
        schema: where it makes everything, a plain name; in the session's own schema if ``public``.
    """
    parts: list[str] = [
        "-- Generated from the Alembic migrations; a test compares it with them. Do not edit."
    ]
    if schema != "public":
        parts.append(f'CREATE SCHEMA IF NOT EXISTS "{schema}";\nSET search_path TO "{schema}";')
    for line in lines:
        revisions = [revision.revision for revision in line.script().walk_revisions()][::-1]
        parts += [_up_file(line, revision).read_text(encoding="utf-8").strip() for revision in revisions]
        parts.append(
            f"CREATE TABLE {line.version_table} (\n"
            f"    version_num VARCHAR(32) NOT NULL,\n"
            f"    CONSTRAINT {line.version_table}_pkc PRIMARY KEY (version_num)\n);\n"
            f"INSERT INTO {line.version_table} (version_num) VALUES ('{revisions[-1]}');"
        )
    return "\n\n".join(parts) + "\n"


def run_sql_file(bind: Connection, file: Path) -> None:
    """Run a whole SQL file inside Alembic's transaction; what a revision's ``upgrade()`` calls."""
    script = file.read_text(encoding="utf-8")
    adapted: Any = bind.connection.dbapi_connection

    async def execute(driver: Any) -> None:
        await driver.execute(script)

    adapted.run_async(execute)


def _up_file(line: Migrations, revision: str) -> Path:
    return line.location / "versions" / f"{revision}.up.sql"


def _owner(settings: PostgresSettings) -> AsyncEngine:
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


async def _run(engine: AsyncEngine, line: Migrations, action: Any, revision: str) -> list[str]:
    def run(connection: Connection) -> list[str]:
        before = _heads(connection, line.version_table)
        action(line.config(connection=connection), revision)
        after = _heads(connection, line.version_table)
        upper, lower = (after, before) if action is command.upgrade else (before, after)
        if upper == lower:
            return []
        return [step.revision for step in line.script().iterate_revisions(upper or "base", lower or "base")][
            ::-1
        ]

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
        raise MigrationFailed(f"{line.version_table}: {error}") from error


async def _refuse_tables_elsewhere(engine: AsyncEngine, line: Migrations, schema: str) -> None:
    """Refuse to create empty tables beside those that an earlier version made by a role's search_path."""
    async with _connected(engine) as connection:
        found = await connection.exec_driver_sql(_SQL["schemas_with_table"], (line.version_table,))
        if elsewhere := found.scalar():
            raise MigrationFailed(
                f"{line.version_table}: the tables are in another schema ({elsewhere}); set POSTGRES_SCHEMA "
                f"to it, or to {schema} to create new, empty tables there"
            )


async def _grant(engine: AsyncEngine, line: Migrations, settings: PostgresSettings) -> None:
    if settings.owner_user in (None, settings.user):
        return
    try:
        async with _connected(engine) as connection, connection.begin():
            await connection.exec_driver_sql(line.grant, (settings.user,))
    except SQLAlchemyError as error:
        raise MigrationFailed(
            f"{settings.user} cannot be given its rights; does POSTGRES_USER name a role?"
        ) from error


def _heads(connection: Connection, version_table: str) -> tuple[str, ...]:
    context = MigrationContext.configure(connection, opts={"version_table": version_table})
    return context.get_current_heads()
