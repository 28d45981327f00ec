"""Indexes by age, with which the sweeper finds old rows."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0005_retention"
down_revision = "0004_fair_tasks"


def upgrade() -> None:
    """Create an index by age for commands, tasks and consumed events."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop these indexes."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
