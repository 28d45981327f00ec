"""The table of periodic work: recurring tasks, and the jobs of the library and its applications."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0013_schedules"
down_revision = "0012_flows"


def upgrade() -> None:
    """Create ``work_schedules``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop ``work_schedules``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
