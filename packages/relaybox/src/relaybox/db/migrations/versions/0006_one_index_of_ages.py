"""Leave commands with an idempotency key out of the index of ended commands: another index has them."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0006_one_index_of_ages"
down_revision = "0005_retention"


def upgrade() -> None:
    """Leave commands with an idempotency key out of the index of ended commands."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Include commands with an idempotency key in the index of ended commands again."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
