"""Provide the command ``relaybox``, and classes to build the command line of an application."""

from typing import TYPE_CHECKING

from relaybox.cli._app import app
from relaybox.cli._errors import ErrorsAsLines
from relaybox.cli._lazy import LazyCommand, LazyGroup

if TYPE_CHECKING:
    from relaybox.cli._migrate import migrate_commands

__all__ = ("ErrorsAsLines", "LazyCommand", "LazyGroup", "app", "migrate_commands")


def __getattr__(name: str) -> object:
    """Import ``migrate_commands`` on first use, because its module imports Alembic, a slow import."""
    if name != "migrate_commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from relaybox.cli._migrate import migrate_commands

    return migrate_commands
