"""A PostgreSQL that keeps its connections open and does not respond."""

import asyncio

import pytest
from relaybox.db import Database, DatabaseUnavailable

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.outages import frozen


@pytest.mark.guarantee("G85")
async def test_silent_server_ends_statement_and_close_in_time(postgres_server, postgres_settings) -> None:
    database = Database(postgres_settings.model_copy(update={"statement_timeout_ms": 100}))
    async with database.connection() as connection:
        await connection.fetch("SELECT 1")
        with frozen(postgres_server), pytest.raises(DatabaseUnavailable):
            async with asyncio.timeout(WAIT_S):
                await connection.fetch("SELECT 1")
    async with database.connection() as connection:
        assert await connection.fetch("SELECT 1") == [(1,)]
    with frozen(postgres_server):
        async with asyncio.timeout(WAIT_S):
            await database.close()
