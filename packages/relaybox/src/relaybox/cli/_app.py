"""Define the program ``relaybox``: its command groups, ``token`` and ``local``."""

import asyncio
import os
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer
from pydantic_core import to_json

from relaybox.cli._errors import needs_extra
from relaybox.cli._lazy import LazyCommand, LazyGroup

__all__ = ("app",)


class _RelayboxGroup(LazyGroup):
    lazy = MappingProxyType(
        {
            "migrate": LazyCommand(
                target="relaybox.cli._migrate:schema_commands",
                help="Migrate the tables to the version of this library.",
            ),
            "topics": LazyCommand(
                target="relaybox.cli._topics:topics_commands",
                help="Create and check the topics of the outbox.",
            ),
            "outbox": LazyCommand(
                target="relaybox.cli._outbox:outbox_commands",
                help="Inspect the outbox; retry, skip and purge its rows.",
            ),
            "relay": LazyCommand(
                target="relaybox.cli._services:relay_commands",
                help="Publish the outbox to Kafka; inspect relays and lanes.",
            ),
            "consumer": LazyCommand(
                target="relaybox.cli._services:consumer_commands",
                help="Consume events with the handlers of an application; inspect consumer groups.",
            ),
            "dead-letters": LazyCommand(
                target="relaybox.cli._dead_letters:letter_commands",
                help="Inspect messages that consumers parked; replay and discard them; park a message.",
            ),
            "flow": LazyCommand(
                target="relaybox.cli._flows:flow_commands",
                help="Run, inspect and cancel flows; inspect and resume their pauses.",
            ),
            "task": LazyCommand(
                target="relaybox.cli._tasks:task_commands",
                help="Inspect tasks; cancel them, and retry those that failed.",
            ),
            "schedule": LazyCommand(
                target="relaybox.cli._schedules:schedule_commands",
                help="Inspect periodic work: next tick, last outcome; "
                "remove schedules that no program declares.",
            ),
            "verify": LazyCommand(
                target="relaybox.cli._verify:verify_command",
                help="Compare the tables with the topics; "
                "exit code 0 only if no event is lost, duplicated, reordered or spread.",
            ),
            "sweep": LazyCommand(
                target="relaybox.cli._sweep:sweep_expired",
                help="Remove expired idempotency keys, and rows older than their retention.",
            ),
        }
    )


#: The program ``relaybox``.
app = typer.Typer(
    cls=_RelayboxGroup,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Transactional outbox, Kafka relay and idempotent commands for FastAPI and PostgreSQL.",
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"relaybox {version('relaybox')}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Transactional outbox, Kafka relay and idempotent commands for FastAPI and PostgreSQL."""


@app.command(help="Print a bearer token for development, signed with JWT_SECRET.")
def token(
    sub: Annotated[str, typer.Option("--sub", help="The subject of the token: a user id.")],
    ttl_s: Annotated[
        int, typer.Option("--ttl-s", min=1, max=31_536_000, help="Seconds until the token expires.")
    ] = 3_600,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print a bearer token for development, signed with JWT_SECRET.

    Raises:
        ExtraMissing: ``relaybox`` is installed without its extra ``http``.
        SettingsError: JWT_SECRET is missing or too short.
    """
    from relaybox.settings import JwtSettings, load_settings

    with needs_extra("http"):
        from relaybox.http import make_token
    try:
        signed = make_token(load_settings(JwtSettings), sub, ttl_s)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sub") from error
    typer.echo(to_json({"token": signed, "expires_in_s": ttl_s}).decode() if as_json else signed)


@app.command(context_settings={"ignore_unknown_options": True})
def local(
    command: Annotated[
        list[str] | None, typer.Argument(help="The command to run; by default the program in SHELL.")
    ] = None,
    data_dir: Annotated[
        Path, typer.Option(envvar="RELAYBOX_DATA_DIR", help="Directory for the data of the servers.")
    ] = Path(".relaybox"),
) -> None:
    """Run a command or a shell with a PostgreSQL and a Kafka that have the tables and topics of Relaybox.

    Uses the servers that POSTGRES_HOST and KAFKA_HOST name. For each of these variables that is not set,
    starts a local server, and stops it when the command ends.
    """
    from relaybox.cli._local import run_with_servers

    argv = command or [os.environ.get("SHELL", "/bin/sh")]
    raise typer.Exit(asyncio.run(run_with_servers(argv, data_dir)))
