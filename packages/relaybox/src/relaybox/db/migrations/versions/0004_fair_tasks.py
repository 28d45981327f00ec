"""Claim open tasks of different users in turns, so that many tasks of one user do not delay the others."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0004_fair_tasks"
down_revision = "0003_erasure"


def upgrade() -> None:
    """Add the columns and indexes for the order in which tasks are claimed."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop these columns and indexes."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
