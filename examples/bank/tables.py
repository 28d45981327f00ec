"""The bank's own tables, beside those of the library: ``python tables.py up`` creates them."""

from pathlib import Path

from relaybox.cli import migrate_commands
from relaybox.db import BACKBONE, Migrations

BANK = Migrations(
    location=Path(__file__).parent / "migrations",
    version_table="bank_alembic_version",
    grant="SELECT bank_grant($1)",
)
MIGRATIONS = (BACKBONE, BANK)

if __name__ == "__main__":
    migrate_commands(*MIGRATIONS)()
