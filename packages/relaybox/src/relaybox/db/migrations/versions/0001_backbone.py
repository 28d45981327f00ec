"""Tables of the library: events, inbox, outbox, tasks, resume handles, lanes, snapshots."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0001_backbone"
down_revision = None


def upgrade() -> None:
    """Create types, tables and functions."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop types, tables with their data, and functions."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
