"""``relaybox sweep``: remove the answers to keyed requests that have expired, now."""

from dataclasses import asdict
from functools import partial

import typer

from relaybox.cli._looks import ask_database, print_json
from relaybox.cli._select import AsJson
from relaybox.idempotency import sweep
from relaybox.settings import IdempotencySettings, load_settings

__all__ = ("sweep_expired",)


def sweep_expired(as_json: AsJson = False) -> None:
    """Remove the answers to keyed requests that have expired; services do so by themselves.

    POSTGRES_* says where. May run while everything else does, as often and as many times at once as you like.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
        TablesUnreadable: the database has no schema of ours, or no rights on it.
    """
    swept = ask_database(partial(sweep, settings=load_settings(IdempotencySettings)))
    if as_json:
        print_json(asdict(swept))
        return
    typer.echo(f"{swept.claims} expired keys removed, {swept.slots} slots of bodies emptied")
    if swept.busy:
        typer.echo("A slot that is due is in use; it is emptied the next time.")
