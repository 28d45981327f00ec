"""Functions that erase the content of the rows about an aggregate, and the table that records erasures."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0003_erasure"
down_revision = "0002_idempotency"


def upgrade() -> None:
    """Create the functions, the table of erasures, and the indexes that the functions need."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Drop functions, table and indexes; erased content is not restored."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
