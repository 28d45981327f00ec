"""Alembic environment of the backbone."""
