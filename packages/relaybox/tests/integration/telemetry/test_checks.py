"""Health checks of a real PostgreSQL and Kafka: running, stopped, silent, without a schema."""

import asyncio
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry
from relaybox.db import BACKBONE, Database
from relaybox.local import LocalPostgres
from relaybox.service import check_kafka
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.telemetry import DatabaseMetrics, HealthState, check_postgres

from tests.fixtures.outages import read_only


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Return the port of a listener that accepts connections and never sends a byte."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def closed_port() -> int:
    """A port without a listener."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


async def test_migrated_postgresql_is_ok_at_every_check(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.telemetry._checks._FRESH_S", -1.0)
    check = check_postgres(database, BACKBONE)
    assert [(await check()).state for _ in range(3)] == [HealthState.OK] * 3


@pytest.mark.guarantee("G35")
async def test_read_only_postgresql_fails_until_it_accepts_writes(
    database: Database, postgres_server: LocalPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.telemetry._checks._FRESH_S", -1.0)
    check = check_postgres(database, BACKBONE)
    async with read_only(postgres_server):
        result = await check()
    assert result.state is HealthState.FAILED
    assert "read-only" in (result.detail or "")
    assert (await check()).state is HealthState.OK


async def test_missing_migration_fails_and_names_the_command_to_run(
    empty_postgres_settings: PostgresSettings,
) -> None:
    database = Database(empty_postgres_settings)
    result = await check_postgres(database, BACKBONE)()
    await database.close()
    assert result.state is HealthState.FAILED
    assert result.detail is not None
    assert "0001_backbone" in result.detail
    assert "relaybox migrate up" in result.detail


async def test_stopped_postgresql_fails(postgres_settings: PostgresSettings, closed_port: int) -> None:
    database = Database(postgres_settings.model_copy(update={"port": closed_port}))
    result = await check_postgres(database, BACKBONE)()
    await database.close()
    assert result.state is HealthState.FAILED
    assert "POSTGRES_HOST" in (result.detail or "")


async def test_postgresql_stopped_after_a_successful_check_fails(
    database: Database, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.telemetry._checks._FRESH_S", -1.0)
    check = check_postgres(database, BACKBONE)
    assert (await check()).state is HealthState.OK
    await database.close()
    database.engine = Database(database.settings.model_copy(update={"port": closed_port})).engine
    assert (await check()).state is HealthState.FAILED


async def test_silent_postgresql_fails_after_a_time_limit(
    postgres_settings: PostgresSettings, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.telemetry._checks.CHECK_LIMIT_S", 0.05)
    database = Database(postgres_settings.model_copy(update={"port": silent_port}))
    result = await check_postgres(database, BACKBONE)()
    await database.close()
    assert result.state is HealthState.FAILED


async def test_running_broker_is_ok(kafka_settings: KafkaSettings) -> None:
    assert (await check_kafka(kafka_settings)()).state is HealthState.OK


@pytest.mark.parametrize("away", [HealthState.DEGRADED, HealthState.FAILED])
async def test_stopped_kafka_has_the_state_that_the_service_chooses(
    closed_port: int, away: HealthState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.telemetry._checks.CHECK_LIMIT_S", 0.2)
    monkeypatch.setattr("relaybox.service.CHECK_LIMIT_S", 0.2)
    result = await check_kafka(KafkaSettings(host="127.0.0.1", port=closed_port), when_unavailable=away)()
    assert result.state is away
    assert f"127.0.0.1:{closed_port}" in (result.detail or "")


async def test_event_loop_runs_while_kafka_is_checked(
    silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.telemetry._checks.CHECK_LIMIT_S", 0.3)
    monkeypatch.setattr("relaybox.service.CHECK_LIMIT_S", 0.3)
    asking = asyncio.create_task(check_kafka(KafkaSettings(host="127.0.0.1", port=silent_port))())
    turns = 0
    while not asking.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10


async def test_metrics_follow_the_connections_of_the_pool(postgres_settings: PostgresSettings) -> None:
    registry = CollectorRegistry()
    database = Database(postgres_settings)
    DatabaseMetrics(registry).watch(database)

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"relaybox_database_connections_{name}")

    assert (value("max"), value("open"), value("used")) == (postgres_settings.pool_size, 0, 0)
    async with database.connection(), database.connection():
        assert (value("open"), value("used")) == (2, 2)
    assert (value("open"), value("used")) == (2, 0)
    await database.close()
    assert (value("open"), value("used")) == (0, 0)
