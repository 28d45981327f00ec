"""Give each schema its own advisory locks for retention: all schemas of a database share one lock space."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0007_locks_per_schema"
down_revision = "0006_one_index_of_ages"


def upgrade() -> None:
    """Change the first part of the lock numbers of the retention functions to the OID of their table."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Change the first part of these lock numbers back to the hash of ``relaybox``."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
