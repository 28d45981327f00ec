"""Answers to keyed requests, and what a service may do with all tables."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0002_idempotency"
down_revision = "0001_backbone"


def upgrade() -> None:
    """Create the tables, and the rights on all of them."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop them, data included."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
