"""Columns that relays need so that an unavailable partition blocks only its own keys (G36)."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0009_partitions"
down_revision = "0008_histories"


def upgrade() -> None:
    """Add columns: which ``transactional.id`` a lane uses, and why a relay publishes only some rows."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the columns ``relay_members.troubles`` and ``relay_lanes.producer_number``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
