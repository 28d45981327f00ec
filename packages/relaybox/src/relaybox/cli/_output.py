"""How commands for operators speak: tables for people, JSON for scripts."""

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
from relaybox.settings import PostgresSettings, load_settings
from relaybox.verify import map_table_errors

__all__ = (
    "cell_text",
    "format_age",
    "format_duration",
    "new_table",
    "print_json",
    "print_table",
    "run_on_database",
)

T = TypeVar("T")
_EMPTY: Final = "–"
#: Wider than any table: to measure one that does not fit.
_WIDTH_MAX: Final = 100_000
_MINUTE_S: Final = 60
_UUID_CHARS: Final = 36
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (_MINUTE_S, "m"))


def run_on_database(work: Callable[[Executor], Awaitable[T]]) -> T:
    """Run *work* on one connection, in autocommit: every statement is a transaction.

    Raises:
        SettingsError: POSTGRES_* is malformed.
        DatabaseError: PostgreSQL is away or too busy.
        TablesUnreadable: the database has no schema of ours, or no rights on it.
    """
    return asyncio.run(_ask(load_settings(PostgresSettings), work))


async def _ask(settings: PostgresSettings, work: Callable[[Executor], Awaitable[T]]) -> T:
    database = Database(settings, application_name="relaybox-operator")
    try:
        with map_table_errors():
            async with database.connection() as connection:
                return await work(connection)
    finally:
        await database.close()


def print_json(told: object) -> None:
    """One JSON value on one line."""
    typer.echo(to_json(told).decode())


def new_table(*columns: str, right: Sequence[str] = (), keys: Iterable[str | None] = ()) -> Table:
    """An empty table; the columns *right* hold figures, a column ``key`` has room for the *keys*.

    A key that is folded cannot be copied: up to the length of a UUID it gets a line of its own.
    """
    made = Table(box=None, pad_edge=False, header_style="bold")
    key_width = min(_UUID_CHARS, max((len(key or "") for key in keys), default=1) or 1)
    for column in columns:
        width = key_width if column == "key" else None
        made.add_column(
            column, justify="right" if column in right else "left", overflow="fold", min_width=width
        )
    return made


def print_table(made: Table) -> None:
    """Print *made*, as wide as the terminal or ``COLUMNS`` is.

    Where it does not fit, each row becomes a block with a line per column, as in psql's expanded display:
    folded cells can neither be read nor copied.
    """
    console = Console()
    unbounded = console.options.update(max_width=_WIDTH_MAX)
    fits = console.measure(made, options=unbounded).maximum <= console.width
    console.print(made if fits or not made.show_header else _expanded(made))


def _expanded(made: Table) -> Table:
    blocks = Table(box=None, pad_edge=False, show_header=False)
    blocks.add_column(style="bold", no_wrap=True)
    blocks.add_column(overflow="fold")
    names = [str(column.header) for column in made.columns]
    for number, (row, cells) in enumerate(
        zip(made.rows, zip(*(column.cells for column in made.columns), strict=True), strict=True)
    ):
        if number:
            blocks.add_row()
        for name, cell in zip(names, cells, strict=True):
            if str(cell) not in {"", _EMPTY}:
                blocks.add_row(name, cell, style=row.style)
    return blocks


def cell_text(value: object) -> Text:
    """*value* as a cell: nothing in it is taken for markup or for a command to the terminal."""
    text = _EMPTY if value is None or value == "" else str(value)
    return Text("".join(one if one.isprintable() else "�" for one in text))


def format_age(moment: datetime | None) -> str:
    """How long ago *moment* was, or is to come."""
    return _EMPTY if moment is None else format_duration((datetime.now(UTC) - moment).total_seconds())


def format_duration(duration_s: float | None) -> str:
    """A duration for people: ``0.4 s``, ``12 s``, ``3 m``, ``2 h``, ``5 d``; negative ones as ``in 3 s``."""
    if duration_s is None:
        return _EMPTY
    if duration_s < 0:
        return f"in {format_duration(-duration_s)}"
    for unit_s, name in _UNITS:
        if duration_s >= 2 * unit_s:
            return f"{duration_s / unit_s:.0f} {name}"
    return f"{duration_s:.1f} s" if duration_s < 10 else f"{duration_s:.0f} s"
