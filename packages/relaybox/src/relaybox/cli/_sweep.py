"""``relaybox sweep``: remove expired responses of idempotent requests, and old rows."""

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
    """Remove expired responses of idempotent requests, and old rows; services do so periodically.

    Old rows are ended commands and tasks, records of consumed events (RETENTION_*), and the idempotency keys
    of commands. Reads POSTGRES_*. Safe to run at any time, also concurrently.

    Raises:
        DatabaseUnavailable: PostgreSQL is unreachable.
        TablesUnreadable: The database has no Relaybox schema, or this user has no rights on it.
    """
    swept, removed = run_on_database(_sweep)
    if as_json:
        print_json(asdict(swept) | asdict(removed))
        return
    typer.echo(f"{swept.claims} expired keys removed, {swept.slots} slots of bodies emptied")
    typer.echo(
        f"{removed.commands} commands, {removed.tasks} tasks and {removed.consumed_events} records of "
        f"consumed events removed, {removed.keys} client keys removed from commands"
    )
    if swept.busy:
        typer.echo("One slot to be emptied is in use; the next sweep empties it.")


async def _sweep(db: Executor) -> tuple[SweepResult, RemovalCounts]:
    keys, retention = load_settings(IdempotencySettings), load_settings(RetentionSettings)
    return await sweep(db, keys), await remove_old_records(db, retention, key_ttl_h=keys.ttl_h)
