"""Fixtures of the backend's tests, which use the schemas of the library and of the applications."""

import pytest
from backend.migrations import ALL
from relaybox.db import Migrations


@pytest.fixture(scope="session")
def migrations() -> tuple[Migrations, ...]:
    """Return the migrations of the library and of the applications."""
    return ALL
