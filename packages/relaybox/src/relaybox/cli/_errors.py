"""Errors of commands: one line on standard error, and the extra to install if a module is missing."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from relaybox.errors import RelayboxError, SettingsError

__all__ = ("ErrorsAsLines", "ExtraMissing", "needs_extra")


class ExtraMissing(RelayboxError):
    """Raised when a command needs a module that is not installed; install the extra in the message."""

    error_code = "EXTRA_MISSING"


class ErrorsAsLines(TyperGroup):
    """A command group that reports each :class:`RelayboxError` as one line and exits with code 1.

    Use it as ``typer.Typer(cls=ErrorsAsLines)``. A :class:`SettingsError` has one line per setting. Any other
    exception is a defect of the program and keeps its traceback.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the selected command."""
        try:
            return super().invoke(ctx)
        except RelayboxError as error:
            for line in _error_lines(error):
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(1) from error


@contextmanager
def needs_extra(extra: str) -> Generator[None]:
    """Map a missing module in this block to an error that names *extra*, the extra that installs it.

    Raises:
        ExtraMissing: A module is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # Relaybox is on no package index, so the name of the extra alone would not be found there.
        raise ExtraMissing(
            f"the module {error.name!r} is missing, which the extra {extra!r} installs; in a clone of "
            f"Relaybox, run: pip install ./packages/types './packages/relaybox[{extra}]'"
        ) from error


def _error_lines(error: RelayboxError) -> list[str]:
    if isinstance(error, SettingsError):
        return str(error).splitlines()
    return [" ".join(str(error).split())]
