"""Alembic environment of the library's migrations."""
