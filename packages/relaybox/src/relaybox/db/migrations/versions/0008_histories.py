"""A failover or a restore begins another history of the outbox."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0008_histories"
down_revision = "0007_locks_per_schema"


def upgrade() -> None:
    """Add the columns that name the history."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop them."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
