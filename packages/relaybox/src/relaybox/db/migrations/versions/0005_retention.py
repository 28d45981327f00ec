"""Old rows can be found by their age, so that they can be removed."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0005_retention"
down_revision = "0004_fair_tasks"


def upgrade() -> None:
    """Create the indexes."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop them."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
