"""The command line: ``relaybox …``, and the parts that an application's own command line is made of."""

from typing import TYPE_CHECKING

from relaybox.cli._app import app
from relaybox.cli._lazy import LazyCommand, LazyGroup
from relaybox.cli._report import ErrorsAsLines

if TYPE_CHECKING:
    from relaybox.cli._migrate import migrate_commands

__all__ = ("ErrorsAsLines", "LazyCommand", "LazyGroup", "app", "migrate_commands")


def __getattr__(name: str) -> object:
    """Load ``migrate_commands`` on demand: it imports Alembic, which ``--help`` does not need."""
    if name != "migrate_commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from relaybox.cli._migrate import migrate_commands

    return migrate_commands
