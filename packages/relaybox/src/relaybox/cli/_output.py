"""Run operator commands on the database, and print tables for terminals or JSON for scripts."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, TypeVar

import typer
from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.text import Text

from relaybox.db import Database, Executor
from relaybox.service import notifications
from relaybox.settings import PostgresSettings, load_settings
from relaybox.verify import map_table_errors

__all__ = (
    "cell_text",
    "format_age",
    "format_duration",
    "format_time",
    "new_table",
    "print_json",
    "print_table",
    "run_on_database",
    "run_with_database",
)

T = TypeVar("T")
_EMPTY: Final = "–"
#: Wider than any table; used to measure the full width of a table.
_WIDTH_MAX: Final = 100_000
_MINUTE_S: Final = 60
_UUID_CHARS: Final = 36
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (_MINUTE_S, "m"))


def run_on_database(work: Callable[[Executor], Awaitable[T]]) -> T:
    """Run *work* on a connection in autocommit mode: each statement is a transaction.

    Args:
        work: Called with the connection; its result is returned.

    Raises:
        SettingsError: POSTGRES_* is malformed.
        DatabaseError: PostgreSQL is unreachable or too busy.
        TablesUnreadable: The database has no Relaybox schema, or this user has no rights on it.
    """

    async def run(database: Database) -> T:
        async with database.connection() as connection:
            return await work(connection)

    return run_with_database(run)


def run_with_database(work: Callable[[Database], Awaitable[T]]) -> T:
    """Run *work*, which opens its own transactions; raise as :func:`run_on_database` does.

    Args:
        work: Called with the database; its result is returned.
    """
    return asyncio.run(_run_with_database(load_settings(PostgresSettings), work))


async def _run_with_database(settings: PostgresSettings, work: Callable[[Database], Awaitable[T]]) -> T:
    database = Database(settings, application_name="relaybox-operator")
    try:
        with map_table_errors():
            async with notifications(database):
                return await work(database)
    finally:
        await database.close()


def print_json(value: object) -> None:
    """Print *value* as JSON on one line."""
    typer.echo(to_json(value).decode())


def new_table(*columns: str, right: Sequence[str] = (), keys: Iterable[str | None] = ()) -> Table:
    """Create an empty table.

    Args:
        columns: Headers of the columns.
        right: Names of the columns that are aligned to the right.
        keys: Values of the column ``key``. The column is as wide as the longest of them, at most as a UUID,
            because a key that continues on the next line cannot be copied.
    """
    table = Table(box=None, pad_edge=False, header_style="bold")
    key_width = min(_UUID_CHARS, max((len(key or "") for key in keys), default=1) or 1)
    for column in columns:
        width = key_width if column == "key" else None
        table.add_column(
            column, justify="right" if column in right else "left", overflow="fold", min_width=width
        )
    return table


def print_table(table: Table) -> None:
    """Print *table*; if the table is wider than the terminal (or ``COLUMNS``), print a block per row instead.

    A block has a line per column, as the expanded display of psql. In a table that is too wide, values would
    be split over several lines, and could neither be read nor copied. A table without a header is printed as
    a table in any case.
    """
    console = Console()
    unbounded = console.options.update(max_width=_WIDTH_MAX)
    fits = console.measure(table, options=unbounded).maximum <= console.width
    console.print(table if fits or not table.show_header else _expanded(table))


def _expanded(table: Table) -> Table:
    blocks = Table(box=None, pad_edge=False, show_header=False)
    blocks.add_column(style="bold", no_wrap=True)
    blocks.add_column(overflow="fold")
    names = [str(column.header) for column in table.columns]
    for number, (row, cells) in enumerate(
        zip(table.rows, zip(*(column.cells for column in table.columns), strict=True), strict=True)
    ):
        if number:
            blocks.add_row()
        for name, cell in zip(names, cells, strict=True):
            if str(cell) not in {"", _EMPTY}:
                blocks.add_row(name, cell, style=row.style)
    return blocks


def cell_text(value: object) -> Text:
    """Return *value* as the text of a table cell; ``–`` for None and an empty string.

    A character that is not printable, which could control the terminal, is replaced by ``�``.
    """
    text = _EMPTY if value is None or value == "" else str(value)
    return Text("".join(char if char.isprintable() else "�" for char in text))


def format_age(moment: datetime | None) -> str:
    """Format the distance of *moment* from now: ``12 s`` if past, ``in 12 s`` if future, ``–`` for None."""
    return _EMPTY if moment is None else format_duration((datetime.now(UTC) - moment).total_seconds())


def format_time(moment: datetime | None) -> str | None:
    """Format *moment* as ISO 8601, followed by :func:`format_age` of *moment*; return None for None."""
    return moment and f"{moment.isoformat(timespec='seconds')}, {format_age(moment)}"


def format_duration(duration_s: float | None) -> str:
    """Format seconds as ``0.4 s``, ``12 s``, ``3 m``, ``2 h``, ``5 d``; -12 as ``in 12 s``, None as ``–``."""
    if duration_s is None:
        return _EMPTY
    if duration_s < 0:
        return f"in {format_duration(-duration_s)}"
    for unit_s, name in _UNITS:
        if duration_s >= 2 * unit_s:
            return f"{duration_s / unit_s:.0f} {name}"
    return f"{duration_s:.1f} s" if duration_s < 10 else f"{duration_s:.0f} s"
