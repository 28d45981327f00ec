"""The command ``backend``: the product's schema and its operations."""

import asyncio
import shlex
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import Annotated, Literal, TypeVar

import typer
from pydantic_core import to_json
from relaybox.cli import ErrorsAsLines, migrate_commands
from relaybox.db import Database
from relaybox.settings import PostgresSettings, load_settings

from backend.genesis import Difference, rebuild_sessions
from backend.migrations import ALL
from backend.workspace import NodeDifference, rebuild_workspace

__all__ = ("app",)

T = TypeVar("T")

app = typer.Typer(
    cls=ErrorsAsLines,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Genesis, an AI novel-writing product, and Workspace, chess studies.",
)
app.add_typer(migrate_commands(*ALL), name="migrate")

_rebuild = typer.Typer(
    cls=ErrorsAsLines, no_args_is_help=True, help="Compare snapshots with domain_events, or repair them."
)
app.add_typer(_rebuild, name="rebuild")


@app.callback()
def main() -> None:
    """Genesis, an AI novel-writing product, and Workspace, chess studies."""


@app.command()
def run() -> None:
    """Run the whole product on this machine until Ctrl-C."""
    # The servers' part is an extra, and no other command needs it.
    from backend.product import run_product
    from backend.running import ProductSettings

    raise typer.Exit(asyncio.run(run_product(load_settings(ProductSettings))))


@app.command()
def env() -> None:
    """Print the running product's settings for a shell: eval "$(backend env)"."""
    from backend.running import ProductSettings, running_environment

    for name, value in running_environment(load_settings(ProductSettings)).items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def demo(
    tale: Annotated[
        Literal["genesis", "workspace"], typer.Argument(help="Whose story: a writer's, or a chess club's.")
    ] = "genesis",
    language: Annotated[Literal["zh", "en"], typer.Option(help="What the writer speaks.")] = "zh",
) -> None:
    """Tell one whole story, with the running product or with one of its own."""
    from backend.demo import run_demo

    raise typer.Exit(asyncio.run(run_demo(tale, language)))


@_rebuild.command()
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

    rebuild = partial(rebuild_sessions, write=write, on_difference=show)
    report = asyncio.run(_on_database(load_settings(PostgresSettings), rebuild))
    summary = f"{report.sessions} sessions: {report.differences} differ, {report.repaired} repaired"
    typer.echo(to_json(asdict(report)).decode() if as_json else summary)
    if report.differences > report.repaired:
        raise typer.Exit(1)


@_rebuild.command()
def workspace(
    write: Annotated[bool, typer.Option("--write", help="Repair the rows that differ.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines, the summary last.")] = False,
) -> None:
    """Make every workspace node again from its events; exit code 1 if a row differs and is not repaired."""

    def show(difference: NodeDifference) -> None:
        done = ", repaired" if difference.repaired else ""
        line = f"{difference.node_id} {difference.kind} in {', '.join(difference.tables)}{done}"
        typer.echo(to_json(asdict(difference)).decode() if as_json else line)

    rebuild = partial(rebuild_workspace, write=write, on_difference=show)
    report = asyncio.run(_on_database(load_settings(PostgresSettings), rebuild))
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
