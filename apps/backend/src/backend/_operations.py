"""Operations on the product's database: ``backend migrate …`` and ``backend rebuild …``."""

import asyncio
from collections.abc import Mapping
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from pydantic_core import to_json
from relaybox.cli import ErrorsAsLines, migrate_commands
from relaybox.db import Database
from relaybox.settings import load_settings

from backend.genesis import SessionProjection
from backend.migrations import ALL
from backend.rebuilding import Difference, Projection, RebuildReport
from backend.rebuilding import rebuild as rebuild_rows
from backend.settings import ProductPostgresSettings
from backend.workspace import NodeProjection

__all__ = ("migrate", "rebuild")

#: JSON key of each printed field of Difference and RebuildReport; other fields are not printed.
_SESSION_FIELDS: Final = {
    "aggregate_id": "session_id",
    "kind": "kind",
    "parts": "fields",
    "aggregates": "sessions",
    "differences": "differences",
    "repaired": "repaired",
}
_NODE_FIELDS: Final = _SESSION_FIELDS | {
    "aggregate_id": "node_id",
    "parts": "tables",
    "aggregates": "nodes",
    "events": "events",
}
_Write = Annotated[bool, typer.Option("--write", help="Repair the rows that differ.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines, the summary last.")]

migrate = migrate_commands(*ALL, postgres=ProductPostgresSettings)
rebuild = typer.Typer(
    cls=ErrorsAsLines, no_args_is_help=True, help="Compare snapshots with domain_events, or repair them."
)


@rebuild.command()
def genesis(write: _Write = False, as_json: _AsJson = False) -> None:
    """Rebuild each session from its events, compare it with its row; exit 1 if a difference remains."""
    _rebuild(SessionProjection(), _SESSION_FIELDS, write=write, as_json=as_json)


@rebuild.command()
def workspace(write: _Write = False, as_json: _AsJson = False) -> None:
    """Rebuild each node from its events, compare it with its rows; exit 1 if a difference remains."""
    _rebuild(NodeProjection(), _NODE_FIELDS, write=write, as_json=as_json)


def _rebuild(
    projection: Projection[Any, Any], fields: Mapping[str, str], *, write: bool, as_json: bool
) -> None:
    def show(item: Difference | RebuildReport, line: str) -> None:
        values = asdict(item)
        document = {name: values[field] for field, name in fields.items() if field in values}
        typer.echo(to_json(document).decode() if as_json else line)

    def show_difference(found: Difference) -> None:
        parts = f" in {', '.join(found.parts)}" if found.parts else ""
        show(found, f"{found.aggregate_id} {found.kind}{parts}{', repaired' if found.repaired else ''}")

    async def run() -> RebuildReport:
        # Two connections: one reads all events; in the other, a transaction compares and repairs differing
        # rows.
        settings = load_settings(ProductPostgresSettings).model_copy(update={"pool_size": 2})
        database = Database(settings, application_name="backend-rebuild")
        try:
            return await rebuild_rows(database, projection, write=write, on_difference=show_difference)
        finally:
            await database.close()

    report = asyncio.run(run())
    counts = [f"{getattr(report, one)} {fields[one]}" for one in ("aggregates", "events") if one in fields]
    show(report, f"{', '.join(counts)}: {report.differences} differ, {report.repaired} repaired")
    if report.differences > report.repaired:
        raise typer.Exit(1)
