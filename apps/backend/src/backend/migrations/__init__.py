"""The schema of the applications: Alembic revisions with their own version table, not that of the library."""

from pathlib import Path
from typing import Final

from relaybox.db import BACKBONE, Migrations, load_queries

__all__ = ("ALL", "BACKEND")

BACKEND: Final = Migrations(
    location=Path(__file__).parent,
    version_table="backend_alembic_version",
    grant=load_queries(__package__ or "backend.migrations", "migrations.sql")["grant_service"],
)

ALL: Final = (BACKBONE, BACKEND)
"""All migrations of the product, in the order in which they must be applied."""
