"""The tables with which consumers find the message whose handler ends the process."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0015_watched_messages"
down_revision = "0014_park_requests"


def upgrade() -> None:
    """Create ``consumer_partitions`` and ``watched_messages``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop ``consumer_partitions`` and ``watched_messages``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
