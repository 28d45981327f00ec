"""Stored responses to requests with an idempotency key, and the services' rights on all tables."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0002_idempotency"
down_revision = "0001_backbone"


def upgrade() -> None:
    """Create the tables of responses, and the function that grants the services their rights."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop the tables with their data, and the functions; rights on other tables stay."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
