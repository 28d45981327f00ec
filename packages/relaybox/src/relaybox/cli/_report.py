"""What a command says when it cannot do its work."""

from typing import Any

import typer
from typer.core import TyperGroup

from relaybox.errors import RelayboxError, SettingsError

__all__ = ("ErrorsAsLines",)


class ErrorsAsLines(TyperGroup):
    """A group whose commands end with exit code 1 and one line on standard error for each of our errors.

    ``typer.Typer(cls=ErrorsAsLines)``. Settings have a line each. An error that is not ours keeps its
    traceback: it is a mistake in the program, and the line would hide it.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except RelayboxError as error:
            for line in error_lines(error):
                typer.echo(f"error: {line}", err=True)
            raise typer.Exit(1) from error


def error_lines(error: RelayboxError) -> list[str]:
    """One line per setting that is wrong; any other error is one line, however its message is set."""
    if isinstance(error, SettingsError):
        return str(error).splitlines()
    return [" ".join(str(error).split())]
