"""A projection of accounts, which the tests of the kit consume events with."""

import pytest
from relaybox.settings import PostgresSettings

from tests.fixtures.events import make_effects_table


@pytest.fixture
async def effects_table(relaybox_postgres_settings: PostgresSettings) -> None:
    """Create a table with one row per effect."""
    await make_effects_table(relaybox_postgres_settings)
