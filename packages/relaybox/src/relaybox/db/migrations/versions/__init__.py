"""Alembic revisions of the backbone."""
