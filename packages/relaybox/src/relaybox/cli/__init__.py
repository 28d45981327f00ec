"""The command line: ``relaybox …``, and the parts that an application's own command line is made of."""

from relaybox.cli._app import app
from relaybox.cli._migrate import migrate_commands
from relaybox.cli._report import ErrorsAsLines

__all__ = ("ErrorsAsLines", "app", "migrate_commands")
