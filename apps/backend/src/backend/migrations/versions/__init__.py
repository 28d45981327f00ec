"""Alembic revisions of the applications."""
