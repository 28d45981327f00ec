"""Tables and columns with which flows record steps, wait for events, pause, resume and end."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0012_flows"
down_revision = "0011_published_letters"


def upgrade() -> None:
    """Create four tables; add columns and indexes to ``flow_resume_handles`` and ``async_tasks``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the four tables with their data, and the new columns and indexes of the two older tables."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
