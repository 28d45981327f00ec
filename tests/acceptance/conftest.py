"""The started product, seen from outside."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.fixtures.product import Product, Writer


@pytest.fixture(scope="session")
def product(server_dir: Path) -> Iterator[Product]:
    """One product for all tests that do not stop it."""
    running = Product(server_dir / "product", CORS_ORIGINS="https://app.example")
    running.start()
    yield running
    assert running.stop() == 0, running.log_text()


@pytest.fixture
def writer(product: Product) -> Iterator[Writer]:
    """Somebody with a token."""
    with product.writer() as client:
        yield client


@pytest.fixture
def stranger(product: Product) -> Iterator[Writer]:
    """Somebody else with a token."""
    with product.writer("stranger") as client:
        yield client


@pytest.fixture
def agent_paused(product: Product) -> Callable[[], AbstractContextManager[None]]:
    """While in this context the agent does nothing, so that what is pending stays so."""

    @contextmanager
    def paused() -> Iterator[None]:
        agent = product.pid_of("concept-agent")
        os.kill(agent, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(agent, signal.SIGCONT)

    return paused
