"""Let an erasure also end suspended flows."""

from pathlib import Path

from alembic import op

from relaybox.db import run_sql_file

revision = "0016_erase_waiting_flows"
down_revision = "0015_watched_messages"


def upgrade() -> None:
    """Replace ``relaybox_erase`` by a version that cancels suspended tasks too."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".up.sql"))


def downgrade() -> None:
    """Restore ``relaybox_erase`` of 0003, which fails for suspended flows."""
    run_sql_file(op.get_bind(), Path(__file__).with_suffix(".down.sql"))
