"""Columns and indexes with which flows pause, resume, expire and are cancelled."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0012_flows"
down_revision = "0011_published_letters"


def upgrade() -> None:
    """Extend ``flow_resume_handles``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Restore ``flow_resume_handles`` as 0001 created it."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
