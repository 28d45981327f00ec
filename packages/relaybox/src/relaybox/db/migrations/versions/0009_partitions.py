"""A partition that takes no writes holds back its own keys only."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0009_partitions"
down_revision = "0008_histories"


def upgrade() -> None:
    """Number the producers of a lane, and keep what troubles a relay."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop both columns."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
