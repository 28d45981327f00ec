"""The whole product on a database of its own, shared by the tests of a module."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from backend.migrations import ALL
from relaybox.db import migrate_up
from relaybox.local import LocalKafka, LocalPostgres
from relaybox.relay import ensure_topics
from relaybox.settings import KafkaSettings

from tests.fixtures.parts import Parts
from tests.fixtures.servers import _create_database, _drop_database, run_apart, settings_for
from tests.fixtures.world import TOPIC, World


@pytest.fixture(scope="module")
def world(
    postgres_server: LocalPostgres, kafka_server: LocalKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """No part runs yet; leases are short, and locks are waited for longer than a test takes to see it."""
    name = f"world_{uuid.uuid4().hex}"
    run_apart(_create_database(postgres_server, name, template="template1"))
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
    run_apart(_drop_database(postgres_server, name))
