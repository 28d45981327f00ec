"""What operators do to the product's database: ``backend migrate …`` and ``backend rebuild …``."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, TypeVar

import typer
from pydantic_core import to_json
from relaybox.cli import ErrorsAsLines, migrate_commands
from relaybox.db import Database
from relaybox.settings import PostgresSettings, load_settings

from backend.genesis import Difference, rebuild_sessions
from backend.migrations import ALL
from backend.settings import ProductPostgresSettings
from backend.workspace import NodeDifference, rebuild_workspace

__all__ = ("migrate", "rebuild")

T = TypeVar("T")

migrate = migrate_commands(*ALL, postgres=ProductPostgresSettings)
rebuild = typer.Typer(
    cls=ErrorsAsLines, no_args_is_help=True, help="Compare snapshots with domain_events, or repair them."
)


@rebuild.command()
def genesis(
    write: Annotated[bool, typer.Option("--write", help="Repair the rows that differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, the summary last.")] = False,
) -> None:
    """Make every genesis session again from its events; exit code 1 if a row differs and is not repaired."""

    def show(difference: Difference) -> None:
        done = ", repaired" if difference.repaired else ""
        fields = f" in {', '.join(difference.fields)}" if difference.fields else ""
        line = f"{difference.session_id} {difference.kind}{fields}{done}"
        typer.echo(to_json(asdict(difference)).decode() if as_json else line)

    work = partial(rebuild_sessions, write=write, on_difference=show)
    report = asyncio.run(_on_database(load_settings(ProductPostgresSettings), work))
    summary = f"{report.sessions} sessions: {report.differences} differ, {report.repaired} repaired"
    typer.echo(to_json(asdict(report)).decode() if as_json else summary)
    if report.differences > report.repaired:
        raise typer.Exit(1)


@rebuild.command()
def workspace(
    write: Annotated[bool, typer.Option("--write", help="Repair the rows that differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, the summary last.")] = False,
) -> None:
    """Make every workspace node again from its events; exit code 1 if a row differs and is not repaired."""

    def show(difference: NodeDifference) -> None:
        done = ", repaired" if difference.repaired else ""
        line = f"{difference.node_id} {difference.kind} in {', '.join(difference.tables)}{done}"
        typer.echo(to_json(asdict(difference)).decode() if as_json else line)

    work = partial(rebuild_workspace, write=write, on_difference=show)
    report = asyncio.run(_on_database(load_settings(ProductPostgresSettings), work))
    summary = (
        f"{report.nodes} nodes, {report.events} events: "
        f"{report.differences} differ, {report.repaired} repaired"
    )
    typer.echo(to_json(asdict(report)).decode() if as_json else summary)
    if report.differences > report.repaired:
        raise typer.Exit(1)


async def _on_database(settings: PostgresSettings, rebuild: Callable[[Database], Awaitable[T]]) -> T:
    # One connection reads the events, another looks again at what differs.
    database = Database(settings.model_copy(update={"pool_size": 2}), application_name="backend-rebuild")
    try:
        return await rebuild(database)
    finally:
        await database.close()
