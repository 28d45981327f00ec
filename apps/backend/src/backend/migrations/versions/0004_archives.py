"""Files of exports in a table of their own."""

from pathlib import Path

from alembic import op
from relaybox.db import run_sql_file

revision = "0004_archives"
down_revision = "0003_erased_sessions"


def upgrade() -> None:
    """Create the table and move the files into it."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the table with its files, which users can export again."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
