"""Advisory locks of two schemas in one database are different locks."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0007_locks_per_schema"
down_revision = "0006_one_index_of_ages"


def upgrade() -> None:
    """Take the locks of retention by table."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Take them by name again."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
