"""A command has one entry in the indexes that find old rows, also with a client key."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0006_one_index_of_ages"
down_revision = "0005_retention"


def upgrade() -> None:
    """Leave keyed commands out of the index of ended ones."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Put them back."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
