"""The table of periodic work: recurring tasks and shared jobs; an index of unresolved dead letters."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0013_schedules"
down_revision = "0012_flows"


def upgrade() -> None:
    """Create ``work_schedules`` and ``idx_dead_letters_group``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop ``work_schedules`` and ``idx_dead_letters_group``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
