"""Let each schema have its own advisory locks of retention, because the locks belong to the database."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0007_locks_per_schema"
down_revision = "0006_one_index_of_ages"


def upgrade() -> None:
    """Let the retention functions lock by the OID of their table."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Let the retention functions lock by the name ``relaybox`` again."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
