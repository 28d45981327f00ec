"""Fixtures: a shop application with idempotent endpoints, on the test's own database."""

from collections.abc import AsyncIterator

import asyncpg
import httpx2 as httpx
import pytest
from relaybox.db import Database

from tests.fixtures.shop import Shop, open_shop


@pytest.fixture
async def shop(database: Database, superuser: asyncpg.Connection) -> AsyncIterator[Shop]:
    async with open_shop(database, superuser, body_bytes_max=4_000) as one:
        yield one


@pytest.fixture
async def ann(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    async with shop.client("ann") as client:
        yield client
