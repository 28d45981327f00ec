"""Sessions whose events were erased."""

from pathlib import Path

from alembic import op
from relaybox.db import run_sql_file

revision = "0003_erased_sessions"
down_revision = "0002_workspace"


def upgrade() -> None:
    """Clear the rows of erased sessions, and those of later erasures with them."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the mark and the trigger; what was erased stays erased."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
