"""Report errors on the command line: one line each, with the extra to install if a module is missing."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from relaybox.errors import RelayboxError, SettingsError

__all__ = ("ErrorsAsLines", "ExtraMissing", "needs_extra")


class ExtraMissing(RelayboxError):
    """Raised when a command needs a module that is not installed; the message names the extra to install."""

    error_code = "EXTRA_MISSING"


class ErrorsAsLines(TyperGroup):
    """A typer group that prints each :class:`RelayboxError` on standard error and exits with code 1.

    Use ``typer.Typer(cls=ErrorsAsLines)``. A :class:`SettingsError` takes one line per setting, any other
    :class:`RelayboxError` one line. Other exceptions are defects of the program and keep their traceback.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments; refuse one that is not UTF-8, which no server could store.

        Raises:
            UsageError: An argument is not UTF-8.
        """
        for argument in args:
            if any("\ud800" <= character <= "\udfff" for character in argument):
                raise typer.BadParameter(f"{argument!r} is not UTF-8", ctx=ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the selected command; print its :class:`RelayboxError`, if any, and exit with code 1."""
        try:
            return super().invoke(ctx)
        except RelayboxError as error:
            for line in _error_lines(error):
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(1) from error


@contextmanager
def needs_extra(extra: str) -> Generator[None]:
    """Raise :class:`ExtraMissing` if the ``with`` block imports a module that is not installed.

    Args:
        extra: The extra of ``relaybox`` that installs the module, such as ``http``.

    Raises:
        ExtraMissing: A module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # Relaybox is on no package index: `pip install relaybox[...]` would not find it.
        raise ExtraMissing(
            f"the module {error.name!r} is missing, which the extra {extra!r} installs; in a clone of "
            f"Relaybox, run: pip install ./packages/types './packages/relaybox[{extra}]'"
        ) from error


def _error_lines(error: RelayboxError) -> list[str]:
    if isinstance(error, SettingsError):
        return str(error).splitlines()
    return [" ".join(str(error).split())]
