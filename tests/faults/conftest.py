"""The whole product on a database of its own, shared by the tests of a module."""

import uuid
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import asyncpg
import pytest
from backend.migrations import ALL
from relaybox.db import migrate_up
from relaybox.local import LocalKafka, LocalPostgres
from relaybox.relay import ensure_topics
from relaybox.settings import KafkaSettings, PostgresSettings

from tests.fixtures.databases import create_database, drop_database, settings_for
from tests.fixtures.keyed import Forks, Keyed
from tests.fixtures.keyed_app import TABLE
from tests.fixtures.parts import Parts
from tests.fixtures.relays import RelayProcess, StartRelay
from tests.fixtures.servers import run_apart
from tests.fixtures.world import TOPIC, World


@pytest.fixture(scope="module")
def world(
    postgres_server: LocalPostgres, kafka_server: LocalKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """No part runs yet; leases are short, and locks are waited for longer than a test takes to see it."""
    name = f"world_{uuid.uuid4().hex}"
    run_apart(create_database(postgres_server, name))
    settings = settings_for(postgres_server, name)
    run_apart(migrate_up(settings, *ALL))
    kafka = KafkaSettings(host=kafka_server.host, port=kafka_server.port)
    run_apart(ensure_topics(kafka, [TOPIC]))
    directory: Path = tmp_path_factory.mktemp("parts")
    parts = Parts(
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
    yield World(postgres_server, kafka_server, settings, parts)
    parts.kill_all()
    run_apart(drop_database(postgres_server, name))


@pytest.fixture
async def make_relay(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings
) -> AsyncGenerator[StartRelay]:
    """Relays in processes of their own, with small batches."""
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
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """What makes the processes of the tests' idempotent API."""
    forks = Forks(tmp_path_factory.mktemp("keyed") / "log")
    yield forks
    forks.end()


@pytest.fixture
async def keyed(
    forks: Forks, postgres_settings: PostgresSettings, superuser: asyncpg.Connection
) -> AsyncGenerator[Keyed]:
    """An idempotent API of which no process runs yet, on a database of the test's own.

    Whatever the test does to it, nothing may happen in it that it does not expect.
    """
    await superuser.execute(TABLE.format(postgres_settings.user))
    keyed = Keyed(forks, postgres_settings, superuser)
    yield keyed
    await keyed.end()
    assert "http.unexpected" not in forks.log_text()
