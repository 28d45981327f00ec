"""``migrate up|down|check|sql`` for any lines of migrations."""

import asyncio
from typing import Annotated, Final

import typer
from pydantic_core import to_json

from relaybox.cli._report import ErrorsAsLines
from relaybox.db import Database, Migrations, migrate_down, migrate_up, pending_migrations, schema_script
from relaybox.settings import PostgresSettings, load_settings

__all__ = ("migrate_commands",)

#: What people with one role only give up (contract, section 1).
_ONE_ROLE: Final = (
    "note: services connect as the owner of the tables (POSTGRES_OWNER_USER is not set or is POSTGRES_USER). "
    "Lost by that: the database refuses to change domain_events by a trigger only, which their role could "
    "drop, and it does not refuse them any other change of the schema."
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of lines.")]
Yes = Annotated[bool, typer.Option("--yes", help="Really remove the tables and all their data.")]


def migrate_commands(*lines: Migrations, postgres: type[PostgresSettings] = PostgresSettings) -> typer.Typer:
    """Make the commands for *lines*, which are applied in this order and removed in the other.

    ``app.add_typer(migrate_commands(BACKBONE), name="migrate")``. They read ``POSTGRES_*`` as
    *postgres*, which may have other defaults, and connect as the owner, ``check`` as the services do; it ends
    with 1 when something is pending.
    """
    group = typer.Typer(cls=ErrorsAsLines, no_args_is_help=True, help="Bring the tables to this version.")

    @group.command()
    def up(as_json: Json = False) -> None:
        """Apply what is missing."""
        settings = load_settings(postgres)
        applied = asyncio.run(migrate_up(settings, *lines))
        _print("applied", applied, "nothing to apply: the schema is up to date", as_json)
        if settings.owner_user in (None, settings.user):
            typer.echo(_ONE_ROLE, err=True)

    @group.command()
    def down(yes: Yes = False, as_json: Json = False) -> None:
        """Remove the tables and all their data."""
        settings = load_settings(postgres)
        if not yes:
            where = f"{settings.db} at {settings.direct().address}"
            typer.echo(f"error: this removes every table and its data from {where}; add --yes", err=True)
            raise typer.Exit(1)
        _print("removed", asyncio.run(_down(settings, lines)), "nothing to remove", as_json)

    @group.command()
    def check(as_json: Json = False) -> None:
        """List what is missing; exit code 1 if anything is."""
        pending = asyncio.run(_pending(load_settings(postgres), lines))
        _print("pending", pending, "the schema is up to date", as_json)
        if pending:
            raise typer.Exit(1)

    @group.command()
    def sql() -> None:
        """Print the whole schema as one SQL text, for the first start of a container."""
        schema = load_settings(postgres).schema_name
        typer.echo(schema_script(*lines, schema=schema), nl=False)

    _ = up, down, check, sql
    return group


async def _down(settings: PostgresSettings, lines: tuple[Migrations, ...]) -> list[str]:
    removed: list[str] = []
    # The last line may refer to tables of those before it.
    for line in reversed(lines):
        removed += await migrate_down(settings, line)
    return removed


async def _pending(settings: PostgresSettings, lines: tuple[Migrations, ...]) -> list[str]:
    database = Database(settings, application_name="relaybox-migrate")
    try:
        return await pending_migrations(database, *lines)
    finally:
        await database.close()


def _print(verb: str, revisions: list[str], none: str, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json({verb: revisions}).decode())
        return
    for line in [f"{verb} {revision}" for revision in revisions] or [none]:
        typer.echo(line)
