"""``relaybox relay status``, ``lanes`` and ``accept``: relays and lanes for operators."""

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from relaybox.cli._options import AsJson, By, actor_name
from relaybox.cli._output import (
    cell_text,
    format_age,
    format_duration,
    new_table,
    print_json,
    print_table,
    run_on_database,
)
from relaybox.db import Database
from relaybox.errors import SettingsError
from relaybox.operations import (
    BACKLOG_ROWS_MAX,
    LANES_MAX,
    Status,
    accept_marker,
    published_per_s,
    relay_status,
    request_lanes,
)
from relaybox.outbox import OutboxSettings
from relaybox.settings import PostgresSettings, RelaySettings, check_settings, load_settings

__all__ = ("accept", "lanes", "status")

_LANE_MAX: Final = 2**31 - 1


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval-s", min=0.2, max=3_600, help="Seconds between two looks.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show relays, lanes and what waits; while watching, how much is published per second too.

    With --json one object per look and line. Settings with which a relay does not start are named on standard
    error.
    """
    try:
        check_settings(RelaySettings, OutboxSettings)
    except SettingsError as error:
        for line in str(error).splitlines():
            typer.echo(f"a relay with these settings does not start: {line}", err=True)
    if watch:
        with suppress(KeyboardInterrupt):
            asyncio.run(_watch(load_settings(PostgresSettings), interval_s, as_json))
    else:
        _print_status(run_on_database(relay_status), None, as_json)


def lanes(
    wanted: Annotated[
        int, typer.Argument(metavar="N", min=1, max=LANES_MAX, help="How many there shall be.")
    ],
    by: By = None,
    reason: Annotated[str | None, typer.Option("--reason", help="Why, for the record.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have more lanes: twice as many as there are, or four times, up to 1024; never fewer.

    Relays split the lanes they hold one by one; nothing is restarted, lost or reordered.
    """
    before = run_on_database(lambda db: request_lanes(db, wanted, by=actor_name(by), reason=reason))
    if as_json:
        print_json({"lanes_before": before, "lanes_wanted": wanted})
    elif before == wanted:
        typer.echo(f"there shall be {wanted} lanes already")
    else:
        typer.echo(
            f"there shall be {wanted} lanes instead of {before}; `relaybox relay status` shows how many are"
        )


def accept(
    lane: Annotated[int, typer.Argument(min=0, max=_LANE_MAX, help="The lane that stands still.")],
    marker: Annotated[UUID, typer.Option("--marker", help="The marker that its fault names.")],
    reason: Annotated[str, typer.Option("--reason", help="Why it may go on, for the record.")],
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Have a lane go on that stands still because Kafka holds a batch which PostgreSQL does not know.

    Its PENDING rows are then published, whether or not that batch had some of them.
    """
    if not reason.strip():
        raise typer.BadParameter("say why", param_hint="--reason")
    run_on_database(lambda db: accept_marker(db, lane, marker, by=actor_name(by), reason=reason))
    if as_json:
        print_json({"lane": lane, "marker": marker})
    else:
        typer.echo(f"lane {lane} goes on from {marker}")


async def _watch(settings: PostgresSettings, interval_s: float, as_json: bool) -> None:
    database, before = Database(settings, application_name="relaybox-operator"), None
    try:
        while True:
            async with database.connection() as connection:
                now = await relay_status(connection)
            _print_status(now, before and published_per_s(before, now), as_json)
            before = now
            await asyncio.sleep(interval_s)
    finally:
        await database.close()


def _print_status(look: Status, per_s: float | None, as_json: bool) -> None:
    if as_json:
        print_json(asdict(look) | {"published_per_s": per_s})
        return
    if per_s is not None:
        Console().clear()
    typer.echo(_backlog(look, per_s))
    if look.relays:
        print_table(_relays(look))
        typer.echo()
    for trouble in sorted({trouble for one in look.relays for trouble in one.troubles}):
        typer.echo(f"degraded: {cell_text(trouble)}")
    print_table(_lanes(look))
    for one in look.lanes:
        if one.fault is not None:
            typer.echo(f"lane {one.lane} publishes nothing: {cell_text(one.fault)}")


def _backlog(look: Status, per_s: float | None) -> str:
    parts = [f"{_counted(look.pending)} pending"]
    if look.oldest_pending_s is not None:
        parts.append(f"the oldest for {format_duration(look.oldest_pending_s)}")
    parts += [f"{_counted(look.retrying)} retrying", f"{_counted(look.failed)} failed"]
    parts += [f"{_counted(look.skipped)} skipped", f"{len(look.lanes)} lanes"]
    if look.lanes_wanted != len(look.lanes):
        parts[-1] += f" of {look.lanes_wanted} wanted"
    if per_s is not None:
        parts.append(f"{per_s:,.0f} published/s")
    return ", ".join(parts) + ("\n" if look.relays else "\nno relay is running\n")


def _counted(rows: int) -> str:
    return f"{rows}+" if rows >= BACKLOG_ROWS_MAX else str(rows)


def _relays(look: Status) -> Table:
    columns = ("relay", "place", "delivery", "breaker", "lanes", "published", "since", "lease")
    made = new_table(*columns, right=("lanes", "published", "since", "lease"))
    for one in look.relays:
        lease = (
            format_duration(one.lease_s) if one.lease_s >= 0 else f"ended {format_duration(-one.lease_s)} ago"
        )
        cells = (_short(one.name), one.place, one.delivery, one.breaker, one.lanes, one.published_total)
        made.add_row(*map(cell_text, (*cells, format_age(one.started_at), lease)))
    return made


def _lanes(look: Status) -> Table:
    columns = ("lane", "hashes", "owner", "epoch", "lease", "pending", "oldest")
    made = new_table(*columns, right=("lane", "epoch", "lease", "pending", "oldest"))
    for one in look.lanes:
        lease = "ended" if one.lease_s is not None and one.lease_s < 0 else format_duration(one.lease_s)
        hashes = f"{one.hash_min}…{one.hash_max}"
        cells = (
            one.lane,
            hashes,
            _short(one.owner),
            one.epoch,
            lease,
            one.pending,
            format_duration(one.oldest_s),
        )
        made.add_row(*map(cell_text, cells))
    return made


def _short(relay: str | None) -> str | None:
    """Enough of a relay's name to tell it from the others: ``relay-1b4e28ba``."""
    return relay and relay[:14]
