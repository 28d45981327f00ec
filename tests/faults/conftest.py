"""Fixtures of fault tests: the whole product, relays, idempotent APIs and PostgreSQL pairs."""

import uuid
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import asyncpg
import pytest
from backend.migrations import ALL
from relaybox.db import BACKBONE, Database, migrate_up
from relaybox.local import LocalKafka, LocalPostgres
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.testing import create_database, drop_database, run_in_own_loop, settings_for
from relaybox.topics import ensure_topics

from tests.faults.chaos._proxy import Proxy
from tests.fixtures.failover import DatabasePair
from tests.fixtures.idempotent_api import ForkServer, IdempotentApi
from tests.fixtures.idempotent_app import ORDERS_TABLE
from tests.fixtures.relays import RelayProcess, StartRelay
from tests.fixtures.service_processes import ServiceProcesses
from tests.fixtures.system_under_test import TOPIC, SystemUnderTest


@pytest.fixture(scope="module")
def system(
    postgres_server: LocalPostgres, kafka_server: LocalKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SystemUnderTest]:
    """Create the product for a module, without running services, with short leases and long lock timeouts."""
    name = f"world_{uuid.uuid4().hex}"
    run_in_own_loop(create_database(postgres_server, name))
    settings = settings_for(postgres_server, name)
    run_in_own_loop(migrate_up(settings, *ALL))
    kafka = KafkaSettings(host=kafka_server.host, port=kafka_server.port)
    run_in_own_loop(ensure_topics(kafka, [TOPIC]))
    directory: Path = tmp_path_factory.mktemp("parts")
    services = ServiceProcesses(
        settings,
        kafka,
        directory,
        TASK_LEASE_S="2",
        TASK_ATTEMPTS_MAX="10",
        TASK_POLL_S="0.2",
        RELAY_LEASE_S="1",
        RELAY_POLL_INTERVAL="1",
        POSTGRES_LOCK_TIMEOUT_MS="12000",
    )
    yield SystemUnderTest(postgres_server, kafka_server, settings, services)
    services.kill_all()
    run_in_own_loop(drop_database(postgres_server, name))


@pytest.fixture
async def make_relay(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings
) -> AsyncGenerator[StartRelay]:
    """Return a function that creates relay processes with small batches."""
    made: list[RelayProcess] = []

    def make(**options: str) -> RelayProcess:
        relay = RelayProcess(
            postgres_settings, kafka_settings, relay_batch_size="20", relay_poll_interval="3600", **options
        )
        made.append(relay)
        return relay

    yield make
    for relay in made:
        await relay.kill()


@pytest.fixture(scope="session")
def fork_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    """Start the server that forks the processes of idempotent APIs."""
    fork_server = ForkServer(tmp_path_factory.mktemp("idempotent") / "log")
    yield fork_server
    fork_server.kill()


@pytest.fixture
async def api(
    fork_server: ForkServer, postgres_settings: PostgresSettings, superuser: asyncpg.Connection
) -> AsyncGenerator[IdempotentApi]:
    """Create an idempotent API without running processes, on the test's database.

    An unexpected error in its log fails the test.
    """
    await superuser.execute(ORDERS_TABLE.format(postgres_settings.user))
    api = IdempotentApi(fork_server, postgres_settings, superuser)
    yield api
    await api.kill_all()
    assert "http.unexpected" not in fork_server.log_text()


@pytest.fixture
async def pair(server_dir: Path) -> AsyncGenerator[DatabasePair]:
    """Start a primary and a standby for the test."""
    primary = LocalPostgres(server_dir / "primary", durable=False)
    await primary.start()
    await create_database(primary, "failover")
    settings = settings_for(primary, "failover")
    await migrate_up(settings, BACKBONE)
    standby = await primary.make_standby(server_dir / "standby")
    await standby.start()
    address = Proxy(primary.port)
    await address.start()
    database = Database(settings.model_copy(update={"port": address.port}))
    pair = DatabasePair(primary=primary, standby=standby, address=address, database=database)
    try:
        yield pair
    finally:
        await database.close()
        await address.close()
        for server in (*pair.retired, pair.primary, pair.standby):
            server.kill()
            server.remove()
