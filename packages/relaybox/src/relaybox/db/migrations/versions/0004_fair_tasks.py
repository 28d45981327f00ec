"""Tasks are claimed fairly between the people they are for."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0004_fair_tasks"
down_revision = "0003_erasure"


def upgrade() -> None:
    """Add the order of claims."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop it."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
