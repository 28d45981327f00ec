"""Implement ``relaybox relay status``, ``lanes`` and ``accept``: inspect and change relays and lanes."""

import asyncio
from contextlib import suppress
from dataclasses import asdict
from typing import Annotated, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table

from relaybox.cli._options import AsJson, By, Reason, actor_name, require_reason
from relaybox.cli._output import (
    cell_text,
    format_age,
    format_duration,
    new_table,
    print_json,
    print_table,
    run_on_database,
    run_with_database,
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
from relaybox.settings import RelaySettings, check_settings

__all__ = ("accept", "lanes", "status")

_LANE_MAX: Final = 2**31 - 1


def status(
    watch: Annotated[bool, typer.Option("--watch", help="Repeat until Ctrl-C.")] = False,
    interval_s: Annotated[
        float, typer.Option("--interval-s", min=0.2, max=3_600, help="Seconds between outputs of --watch.")
    ] = 2.0,
    as_json: AsJson = False,
) -> None:
    """Show relays, lanes and the backlog; with --watch also the rows published per second.

    With --json, prints one object per line. Also prints on standard error the errors in RELAY_* and OUTBOX_*
    that would prevent the start of a relay.
    """
    try:
        check_settings(RelaySettings, OutboxSettings)
    except SettingsError as error:
        for line in str(error).splitlines():
            typer.echo(f"a relay does not start with these settings: {line}", err=True)
    if watch:
        with suppress(KeyboardInterrupt):
            run_with_database(lambda database: _watch(database, interval_s, as_json))
    else:
        _print_status(run_on_database(relay_status), None, as_json)


def lanes(
    wanted: Annotated[
        int, typer.Argument(metavar="N", min=1, max=LANES_MAX, help="Requested number of lanes.")
    ],
    by: By = None,
    reason: Reason = None,
    as_json: AsJson = False,
) -> None:
    """Increase the number of lanes to 2, 4, 8, … times the present number, at most 1024.

    The number can never be decreased. Relays split their lanes one after the other. No restart is needed, and
    no event is lost or reordered.
    """
    before = run_on_database(lambda db: request_lanes(db, wanted, by=actor_name(by), reason=reason))
    if as_json:
        print_json({"lanes_before": before, "lanes_wanted": wanted})
    elif before == wanted:
        typer.echo(f"{wanted} lanes are requested already")
    else:
        typer.echo(
            f"requested {wanted} lanes instead of {before}; `relaybox relay status` shows how many exist"
        )


def accept(
    lane: Annotated[int, typer.Argument(min=0, max=_LANE_MAX, help="Number of the stopped lane.")],
    marker: Annotated[
        UUID, typer.Option("--marker", help="Id of the batch, from the lane's fault in `relay status`.")
    ],
    reason: Annotated[
        str, typer.Option("--reason", help="Why the lane may continue; recorded with the action.")
    ],
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Continue a lane that stopped because Kafka has a batch that is not recorded in PostgreSQL.

    Relays then publish the PENDING rows of the lane. Rows that the batch contained are published again.
    """
    require_reason(reason)
    run_on_database(lambda db: accept_marker(db, lane, marker, by=actor_name(by), reason=reason))
    if as_json:
        print_json({"lane": lane, "marker": marker})
    else:
        typer.echo(f"lane {lane} continues after marker {marker}")


async def _watch(database: Database, interval_s: float, as_json: bool) -> None:
    previous: Status | None = None
    while True:
        async with database.connection() as connection:
            current = await relay_status(connection)
        _print_status(current, previous and published_per_s(previous, current), as_json)
        previous = current
        await asyncio.sleep(interval_s)


def _print_status(status: Status, per_s: float | None, as_json: bool) -> None:
    if as_json:
        print_json(asdict(status) | {"published_per_s": per_s})
        return
    if per_s is not None:
        Console().clear()
    typer.echo(_backlog(status, per_s))
    if status.relays:
        print_table(_relay_table(status))
        typer.echo()
    for trouble in sorted({trouble for relay in status.relays for trouble in relay.troubles}):
        typer.echo(f"degraded: {cell_text(trouble)}")
    print_table(_lane_table(status))
    for lane in status.lanes:
        if lane.fault is not None:
            typer.echo(f"lane {lane.lane} publishes nothing: {cell_text(lane.fault)}")


def _backlog(status: Status, per_s: float | None) -> str:
    parts = [f"{_counted(status.pending)} pending"]
    if status.oldest_pending_s is not None:
        parts.append(f"the oldest for {format_duration(status.oldest_pending_s)}")
    parts += [f"{_counted(status.retrying)} retrying", f"{_counted(status.failed)} failed"]
    parts += [f"{_counted(status.skipped)} skipped", f"{len(status.lanes)} lanes"]
    if status.lanes_wanted != len(status.lanes):
        parts[-1] += f" of {status.lanes_wanted} requested"
    if per_s is not None:
        parts.append(f"{per_s:,.0f} published/s")
    return ", ".join(parts) + ("\n" if status.relays else "\nno relay is running\n")


def _counted(rows: int) -> str:
    return f"{rows}+" if rows >= BACKLOG_ROWS_MAX else str(rows)


def _relay_table(status: Status) -> Table:
    columns = ("relay", "place", "delivery", "breaker", "lanes", "published", "since", "lease")
    table = new_table(*columns, right=("lanes", "published", "since", "lease"))
    for relay in status.relays:
        lease = format_duration(abs(relay.lease_s))
        cells = (
            _short_name(relay.name),
            relay.place,
            relay.delivery,
            relay.breaker,
            relay.lanes,
            relay.published_total,
            format_age(relay.started_at),
            lease if relay.lease_s >= 0 else f"ended {lease} ago",
        )
        table.add_row(*map(cell_text, cells))
    return table


def _lane_table(status: Status) -> Table:
    columns = ("lane", "hashes", "owner", "epoch", "lease", "pending", "oldest")
    table = new_table(*columns, right=("lane", "epoch", "lease", "pending", "oldest"))
    for lane in status.lanes:
        lease = "ended" if lane.lease_s is not None and lane.lease_s < 0 else format_duration(lane.lease_s)
        hashes = f"{lane.hash_min}…{lane.hash_max}"
        cells = (
            lane.lane,
            hashes,
            _short_name(lane.owner),
            lane.epoch,
            lease,
            lane.pending,
            format_duration(lane.oldest_s),
        )
        table.add_row(*map(cell_text, cells))
    return table


def _short_name(relay: str | None) -> str | None:
    """Return the first 14 characters of a relay's name, such as ``relay-1b4e28ba``; None for None."""
    return relay and relay[:14]
