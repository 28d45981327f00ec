"""Fixtures of the bank's tests; those that begin with ``relaybox_`` come from the library."""

from collections.abc import AsyncIterator

import httpx2
import pytest
from app import app
from relaybox.db import Migrations
from relaybox.http import make_token
from relaybox.settings import JwtSettings
from tables import MIGRATIONS


@pytest.fixture(scope="session")
def relaybox_migrations() -> tuple[Migrations, ...]:
    return MIGRATIONS


@pytest.fixture
async def ann(relaybox_postgres_environment: object) -> AsyncIterator[httpx2.AsyncClient]:
    """Start the application, and return a client with a token of Ann."""
    headers = {"Authorization": f"Bearer {make_token(JwtSettings(), 'ann')}"}
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(
            transport=httpx2.ASGITransport(app), base_url="http://bank", headers=headers
        ) as client,
    ):
        yield client
