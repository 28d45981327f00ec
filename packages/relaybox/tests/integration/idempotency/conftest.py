"""Stores of responses: in PostgreSQL, in Redis, or both."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.settings import PostgresSettings

from tests.fixtures.redis_server import RedisServer
from tests.fixtures.stores import PostgresStores, RedisStores, Stores

_POOL_SIZE = 70
#: Longer than any test, so that no lease ends in a test; the tests of leases use their own.
_LEASE_S = 600.0


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Close what a test has opened."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def redis_stores(redis_server: RedisServer, redis_prefix: str, stack: AsyncExitStack) -> RedisStores:
    """Return stores in Redis."""
    return RedisStores(redis_server, redis_prefix, stack, lease_s=_LEASE_S)


@pytest.fixture
async def postgres_stores(
    postgres_settings: PostgresSettings, superuser: asyncpg.Connection, stack: AsyncExitStack
) -> PostgresStores:
    """Return stores in PostgreSQL."""
    database = Database(postgres_settings.model_copy(update={"pool_size": _POOL_SIZE}))
    stack.push_async_callback(database.close)
    return PostgresStores(database, superuser, stack)


@pytest.fixture(params=["postgres", "redis"])
def stores(request: pytest.FixtureRequest) -> Stores:
    """Return stores of each kind in turn: the test applies to both."""
    return request.getfixturevalue(f"{request.param}_stores")
