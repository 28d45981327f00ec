"""Let an erasure also erase the outbox rows that publish dead letters to a topic."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0011_published_letters"
down_revision = "0010_dead_letters"


def upgrade() -> None:
    """Replace the functions that erase outbox rows."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Restore the functions of 0003, which erase only events."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
