"""The command ``relaybox``."""

from importlib.metadata import version
from typing import Annotated

import typer
from pydantic_core import to_json

from relaybox.cli._migrate import migrate_commands
from relaybox.cli._report import ErrorsAsLines
from relaybox.cli._topics import topics_commands
from relaybox.db import BACKBONE
from relaybox.errors import RelayboxError
from relaybox.settings import JwtSettings, load_settings

__all__ = ("app",)

app = typer.Typer(
    cls=ErrorsAsLines,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Commands taken once, facts recorded with them, every fact told to Kafka.",
)
app.add_typer(migrate_commands(BACKBONE), name="migrate")
app.add_typer(topics_commands, name="topics")


class ExtraMissing(RelayboxError):
    """Raised when a command needs a part of the library that is not installed; install the extra."""

    error_code = "EXTRA_MISSING"


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
    try:
        from relaybox.http import make_token
    except ModuleNotFoundError as error:
        raise ExtraMissing(f"this needs {error.name}; run: pip install 'relaybox[http]'") from error
    try:
        made = make_token(load_settings(JwtSettings), sub, ttl_s)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--sub") from error
    typer.echo(to_json({"token": made, "expires_in_s": ttl_s}).decode() if as_json else made)
