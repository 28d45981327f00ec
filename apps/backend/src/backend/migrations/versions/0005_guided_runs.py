"""Guided runs of sessions."""

from pathlib import Path

from alembic import op
from relaybox.db import run_sql_file

revision = "0005_guided_runs"
down_revision = "0004_archives"


def upgrade() -> None:
    """Add a column for the last guided run of a session; an erasure of the session clears the column."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the column."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
