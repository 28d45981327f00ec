"""The table of genesis sessions."""

from pathlib import Path

from alembic import op
from relaybox.db import run_sql_file

revision = "0001_genesis"
down_revision = None


def upgrade() -> None:
    """Create the types, the table and the function backend_grant."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the function, the table with its rows, and the types."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
