"""The command ``relaybox``."""

import asyncio
import os
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer
from pydantic_core import to_json

from relaybox.cli._extras import needs_extra
from relaybox.cli._lazy import LazyCommand, LazyGroup

__all__ = ("app",)


class _Program(LazyGroup):
    lazy = MappingProxyType(
        {
            "migrate": LazyCommand(
                target="relaybox.cli._schema:schema_commands", help="Bring the tables to this version."
            ),
            "topics": LazyCommand(
                target="relaybox.cli._topics:topics_commands", help="The topics that events go to."
            ),
            "outbox": LazyCommand(
                target="relaybox.cli._outbox:outbox_commands",
                help="What waits in the outbox, and what to do about it.",
            ),
            "relay": LazyCommand(
                target="relaybox.cli._services:relay_commands", help="Publish the outbox to Kafka."
            ),
            "consumer": LazyCommand(
                target="relaybox.cli._services:consumer_commands", help="Hand events to handlers."
            ),
            "verify": LazyCommand(
                target="relaybox.cli._verify:verify_command",
                help="Compare the tables with the topics; "
                "exit code 0 only if nothing is lost, duplicated, reordered or spread.",
            ),
            "sweep": LazyCommand(
                target="relaybox.cli._sweep:sweep_expired",
                help="Remove the answers to keyed requests that have expired.",
            ),
        }
    )


app = typer.Typer(
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Commands taken once, facts recorded with them, every fact told to Kafka.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"relaybox {version('relaybox')}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Commands taken once, facts recorded with them, every fact told to Kafka."""


@app.command(help="Print a development token, signed with JWT_SECRET.")
def token(
    sub: Annotated[str, typer.Option("--sub", help="Whom the token speaks for.")],
    ttl_s: Annotated[int, typer.Option("--ttl-s", min=1, max=31_536_000, help="Seconds it holds.")] = 3_600,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print a development token, signed with JWT_SECRET.

    Raises:
        ExtraMissing: the library is installed without ``[http]``.
        SettingsError: JWT_SECRET is missing or too short.
    """
    from relaybox.settings import JwtSettings, load_settings

    with needs_extra("http"):
        from relaybox.http import make_token
    try:
        made = make_token(load_settings(JwtSettings), sub, ttl_s)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sub") from error
    typer.echo(to_json({"token": made, "expires_in_s": ttl_s}).decode() if as_json else made)


@app.command(context_settings={"ignore_unknown_options": True})
def local(
    command: Annotated[list[str] | None, typer.Argument(help="What to run; your shell if left out.")] = None,
    data_dir: Annotated[
        Path, typer.Option(envvar="RELAYBOX_DATA_DIR", help="Where the servers keep their data.")
    ] = Path(".relaybox"),
) -> None:
    """Run a command, or a shell, beside a PostgreSQL and a Kafka that are ready for Relaybox.

    Servers that POSTGRES_HOST and KAFKA_HOST name are used; for others, local ones are started.
    """
    from relaybox.cli._local import run_with_servers

    words = command or [os.environ.get("SHELL", "/bin/sh")]
    raise typer.Exit(asyncio.run(run_with_servers(words, data_dir)))
