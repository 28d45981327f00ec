"""The tables of chess studies."""

from pathlib import Path

from alembic import op
from relaybox.db import run_sql_file

revision = "0002_workspace"
down_revision = "0001_genesis"


def upgrade() -> None:
    """Create the types, tables, indexes and functions."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the functions, indexes, tables with their rows, and types."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
