"""Tests of the backend run on its whole schema."""

import pytest
from backend.migrations import ALL
from relaybox.db import Migrations


@pytest.fixture(scope="session")
def migration_lines() -> tuple[Migrations, ...]:
    """The backbone's tables and the applications'."""
    return ALL
