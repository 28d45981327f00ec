"""Run every test here on each supported major version of PostgreSQL."""

from tests.fixtures.both_postgres import databases, postgres_server

__all__ = ("databases", "postgres_server")
