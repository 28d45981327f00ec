"""Every test here runs on each supported major version of PostgreSQL."""

from tests.fixtures.both_postgres import database_templates, postgres_server

__all__ = ("database_templates", "postgres_server")
