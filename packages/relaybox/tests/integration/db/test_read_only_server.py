"""A server that accepts no writes: a standby, or a primary that was demoted."""

import asyncpg
import pytest
from relaybox.db import Database, DatabaseUnavailable, executor_of
from relaybox.local import LocalPostgres
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.outages import read_only

_WRITE = "INSERT INTO event_outbox (topic, key, payload) VALUES ('t', 'k', '{}')"


async def write(db: AsyncSession) -> None:
    await executor_of(db).fetch(_WRITE)


async def write_by_driver(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch(_WRITE)


async def process_ids(database: Database) -> set[int]:
    """Return the backend process ids of two connections that are in use at the same time."""
    async with database.connection() as one, database.connection() as two:
        assert isinstance(one, asyncpg.Connection)
        assert isinstance(two, asyncpg.Connection)
        return {one.get_server_pid(), two.get_server_pid()}


@pytest.mark.guarantee("G35")
async def test_read_only_server_is_unavailable(database: Database, postgres_server: LocalPostgres) -> None:
    await database.run_in_transaction(write)
    async with read_only(postgres_server):
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            await database.run_in_transaction(write)
        with pytest.raises(DatabaseUnavailable, match="read-only"):
            await write_by_driver(database)
    await database.run_in_transaction(write)
    await write_by_driver(database)


@pytest.mark.guarantee("G35")
@pytest.mark.parametrize("by_driver", [True, False])
async def test_read_only_server_loses_all_pooled_connections(
    database: Database, postgres_server: LocalPostgres, by_driver: bool
) -> None:
    before = await process_ids(database)
    async with read_only(postgres_server):
        with pytest.raises(DatabaseUnavailable):
            await (write_by_driver(database) if by_driver else database.run_in_transaction(write))
    assert not await process_ids(database) & before
