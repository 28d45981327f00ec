"""Sessions whose events were erased."""

from pathlib import Path

from alembic import op
from relaybox.db import run_sql_file

revision = "0003_erased_sessions"
down_revision = "0002_workspace"


def upgrade() -> None:
    """Clear the rows of erased sessions, and create the trigger that clears those of later erasures."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the column and the trigger; erased content stays erased."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
