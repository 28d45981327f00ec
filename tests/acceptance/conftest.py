"""Fixtures that start the product and open clients to it."""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import asyncpg
import pytest
from relaybox.testing import create_database, run_in_own_loop

from tests.fixtures.pgbouncer import PgBouncer
from tests.fixtures.product import Product, Writer

MakeProduct = Callable[..., Product]


@pytest.fixture(scope="session")
def behind_pgbouncer(request: pytest.FixtureRequest) -> bool:
    """Return whether products use a PostgreSQL behind PgBouncer instead of starting their own."""
    return request.config.getoption("--pgbouncer")


@pytest.fixture(scope="session")
def make_product(
    request: pytest.FixtureRequest, server_dir: Path, behind_pgbouncer: bool
) -> Iterator[MakeProduct]:
    """``make_product("name", API_WORKERS="2")``: return an unstarted product with its own data."""
    if not behind_pgbouncer:
        yield lambda name, **changes: Product(server_dir / name, **changes)
        return
    server = request.getfixturevalue("postgres_server")
    programs = request.getfixturevalue("pgbouncer_programs")
    pooler = PgBouncer(programs, server_dir / "pgbouncer", server, "session")
    run_in_own_loop(pooler.start())

    def make(name: str, **changes: str) -> Product:
        run_in_own_loop(create_database(server, name))
        address = {"POSTGRES_PORT": str(pooler.port), "POSTGRES_DB": name, "POSTGRES_POOLER": pooler.mode}
        return Product(server_dir / name, **server.settings() | address | changes)

    yield make
    pooler.kill()


@pytest.fixture(scope="session")
def product(make_product: MakeProduct) -> Iterator[Product]:
    """Start one product for all tests that do not stop it."""
    running = make_product("product", CORS_ORIGINS="https://app.example")
    running.start()
    yield running
    assert running.stop() == 0, running.log_text()


@pytest.fixture
def writer(product: Product) -> Iterator[Writer]:
    """Open a client with a token."""
    with product.writer() as client:
        yield client


@pytest.fixture
def stranger(product: Product) -> Iterator[Writer]:
    """Open a client with another user's token."""
    with product.writer("stranger") as client:
        yield client


@pytest.fixture
async def owner(product: Product) -> AsyncIterator[asyncpg.Connection]:
    """Open a connection to the product's database as its owner."""
    known = product.environment
    connection = await asyncpg.connect(
        host=known["POSTGRES_HOST"],
        port=int(known["POSTGRES_PORT"]),
        database=known["POSTGRES_DB"],
        user=known["POSTGRES_OWNER_USER"],
        password=known["POSTGRES_OWNER_PASSWORD"],
    )
    yield connection
    await connection.close()


@pytest.fixture
def agent_paused(product: Product) -> Callable[[], AbstractContextManager[None]]:
    """Return a context that freezes the agent, so that pending commands stay pending."""

    @contextmanager
    def paused() -> Iterator[None]:
        agent = product.pid_of("concept-agent")
        os.kill(agent, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(agent, signal.SIGCONT)

    return paused
