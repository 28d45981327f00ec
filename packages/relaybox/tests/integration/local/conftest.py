"""Fixtures of tests that start their own servers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from pathlib import Path

import pytest
from relaybox.local import LocalPostgres
from relaybox.testing import server_directory

from tests.fixtures.bounds import WAIT_S


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that the account of PostgreSQL can enter when the tests run as root."""
    with server_directory() as directory:
        yield directory


@pytest.fixture
def postgres_version(request: pytest.FixtureRequest) -> int:
    return request.config.getoption("--postgres-version")


@pytest.fixture
def kafka_version(request: pytest.FixtureRequest) -> str:
    return request.config.getoption("--kafka-version")


@pytest.fixture
async def postgres(place: Path, postgres_version: int) -> AsyncIterator[LocalPostgres]:
    """A running PostgreSQL for this test."""
    server = LocalPostgres(place / "postgres", version=postgres_version, durable=False)
    await server.start()
    yield server
    await server.stop("immediate")


@pytest.fixture
def until_frozen() -> Callable[[Iterable[int]], Awaitable[None]]:
    """Wait until the processes are stopped or ended; the kernel notifies only their parent."""

    async def wait(pids: Iterable[int]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not {_state(pid) for pid in pids} <= {"T", "Z"}:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    return wait


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"
