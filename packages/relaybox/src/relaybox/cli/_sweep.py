"""Implement ``relaybox sweep``: remove expired idempotency keys, and rows older than their retention."""

from dataclasses import asdict

import typer

from relaybox.cli._options import AsJson
from relaybox.cli._output import print_json, run_on_database
from relaybox.db import Executor
from relaybox.idempotency import SweepResult, sweep
from relaybox.retention import RemovalCounts, remove_old_records
from relaybox.settings import IdempotencySettings, RetentionSettings, load_settings

__all__ = ("sweep_expired",)


def sweep_expired(as_json: AsJson = False) -> None:
    """Remove expired idempotency keys with their responses, and rows older than their retention.

    RETENTION_* sets how long ended commands, tasks and flows, records of consumed events, events kept for
    flows, and resolved dead letters are kept. In the rows of commands, the idempotency key of the client is
    removed after IDEMPOTENCY_TTL_H. Services do all this every IDEMPOTENCY_SWEEP_S; ``relaybox sweep`` may
    run at the same time.

    Raises:
        DatabaseUnavailable: PostgreSQL is unreachable.
        TablesUnreadable: The database has no Relaybox schema, or this user has no rights on it.
    """
    swept, removed = run_on_database(_sweep)
    if as_json:
        print_json(asdict(swept) | asdict(removed))
        return
    typer.echo(f"{swept.claims} expired keys removed, {swept.slots} tables of response bodies truncated")
    typer.echo(
        f"{removed.commands} commands, {removed.tasks} tasks, {removed.consumed_events} records of consumed "
        f"events, {removed.dead_letters} resolved dead letters, {removed.flow_handles} handles of flows and "
        f"{removed.flow_events} events kept for flows removed, {removed.keys} client keys removed from "
        "commands"
    )
    if swept.busy:
        typer.echo("a table of expired response bodies is being read; the next sweep truncates the table")


async def _sweep(db: Executor) -> tuple[SweepResult, RemovalCounts]:
    keys, retention = load_settings(IdempotencySettings), load_settings(RetentionSettings)
    return await sweep(db, keys), await remove_old_records(db, retention, key_ttl_h=keys.ttl_h)
