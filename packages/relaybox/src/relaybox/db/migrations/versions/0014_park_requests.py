"""The table of messages that operators want parked."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0014_park_requests"
down_revision = "0013_schedules"


def upgrade() -> None:
    """Create ``park_requests``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop ``park_requests``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
