"""``relaybox migrate``: the backbone's own tables."""

from relaybox.cli._migrate import migrate_commands
from relaybox.db import BACKBONE

__all__ = ("schema_commands",)

schema_commands = migrate_commands(BACKBONE)
