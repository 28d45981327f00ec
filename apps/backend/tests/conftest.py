"""Tests of the backend use its whole schema."""

import pytest
from backend.migrations import ALL
from relaybox.db import Migrations


@pytest.fixture(scope="session")
def migration_lines() -> tuple[Migrations, ...]:
    """The migrations of the backbone and of the applications."""
    return ALL
