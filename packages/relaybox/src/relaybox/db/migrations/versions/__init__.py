"""Alembic revisions of the library's tables."""
