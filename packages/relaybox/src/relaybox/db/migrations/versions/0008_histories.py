"""Store the history of PostgreSQL (system identifier and timeline) that a failover or restore changes."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0008_histories"
down_revision = "0007_locks_per_schema"


def upgrade() -> None:
    """Add the columns with the history to ``relay_origin`` and ``relay_lanes``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop these columns."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
