"""The erasure of what was said about aggregates, on record; facts stay."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0003_erasure"
down_revision = "0002_idempotency"


def upgrade() -> None:
    """Create the function, its record, and the indexes it searches by."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop them; what was erased stays erased."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
