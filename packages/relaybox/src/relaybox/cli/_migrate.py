"""Build the commands ``migrate up|down|check|sql`` for one or more sets of migrations."""

import asyncio
from typing import Annotated, Final

import typer
from pydantic_core import to_json

from relaybox.cli._errors import ErrorsAsLines
from relaybox.db import (
    BACKBONE,
    Database,
    Migrations,
    migrate_down,
    migrate_up,
    pending_migrations,
    schema_script,
)
from relaybox.settings import PostgresSettings, load_settings

__all__ = ("migrate_commands", "schema_commands")

#: Printed after ``up`` if services and migrations use one role; see docs/how-to/roles-and-migrations.md.
_ONE_ROLE: Final = (
    "note: services connect as the owner of the tables (POSTGRES_OWNER_USER is not set or is POSTGRES_USER). "
    "PostgreSQL then lets services change the schema and drop the trigger that protects recorded events "
    "(domain_events) from changes. Set POSTGRES_OWNER_USER to a role that no service uses."
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")]
Yes = Annotated[
    bool, typer.Option("--yes", help="Remove the tables and all their data without further confirmation.")
]


def migrate_commands(
    *migrations: Migrations, postgres: type[PostgresSettings] = PostgresSettings
) -> typer.Typer:
    """Build the commands for *migrations*: ``app.add_typer(migrate_commands(BACKBONE), name="migrate")``.

    ``up`` and ``down`` connect as ``POSTGRES_OWNER_USER``, ``check`` as ``POSTGRES_USER``. ``check`` exits
    with code 1 if a migration is pending.

    Args:
        migrations: Sets of migrations: ``up`` applies them in this order, ``down`` in the reverse order.
        postgres: Settings class that reads ``POSTGRES_*``; a subclass may have other defaults.
    """
    group = typer.Typer(
        cls=ErrorsAsLines, no_args_is_help=True, help="Migrate the tables to the version of this library."
    )

    @group.command()
    def up(as_json: Json = False) -> None:
        """Apply pending migrations."""
        settings = load_settings(postgres)
        applied = asyncio.run(migrate_up(settings, *migrations))
        _print("applied", applied, "nothing to apply: the schema is up to date", as_json)
        if settings.owner_user in (None, settings.user):
            typer.echo(_ONE_ROLE, err=True)

    @group.command()
    def down(yes: Yes = False, as_json: Json = False) -> None:
        """Remove the tables and all their data."""
        settings = load_settings(postgres)
        if not yes:
            where = f"{settings.db} at {settings.direct().address}"
            typer.echo(
                f"error: this would remove all Relaybox tables and their data from {where}; add --yes",
                err=True,
            )
            raise typer.Exit(1)
        _print("removed", asyncio.run(_down(settings, migrations)), "nothing to remove", as_json)

    @group.command()
    def check(as_json: Json = False) -> None:
        """List pending migrations; exit code 1 if there are any."""
        pending = asyncio.run(_pending(load_settings(postgres), migrations))
        _print("pending", pending, "the schema is up to date", as_json)
        if pending:
            raise typer.Exit(1)

    @group.command()
    def sql() -> None:
        """Print the whole schema as one SQL script, for the first start of a PostgreSQL container."""
        schema = load_settings(postgres).schema_name
        typer.echo(schema_script(*migrations, schema=schema), nl=False)

    _ = up, down, check, sql
    return group


async def _down(settings: PostgresSettings, migrations: tuple[Migrations, ...]) -> list[str]:
    removed: list[str] = []
    # Tables of a later set may reference tables of an earlier set.
    for part in reversed(migrations):
        removed += await migrate_down(settings, part)
    return removed


async def _pending(settings: PostgresSettings, migrations: tuple[Migrations, ...]) -> list[str]:
    database = Database(settings, application_name="relaybox-migrate")
    try:
        return await pending_migrations(database, *migrations)
    finally:
        await database.close()


def _print(verb: str, revisions: list[str], if_empty: str, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({verb: revisions}).decode())
        return
    for line in [f"{verb} {revision}" for revision in revisions] or [if_empty]:
        typer.echo(line)


#: The commands of ``relaybox migrate``, which cover only the tables of the library.
schema_commands = migrate_commands(BACKBONE)
