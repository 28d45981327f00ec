"""The table of messages that a consumer group could not process."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0010_dead_letters"
down_revision = "0009_partitions"


def upgrade() -> None:
    """Create ``dead_letters``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop ``dead_letters`` with the parked messages."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
