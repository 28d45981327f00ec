"""Handlers that wait longer than PostgreSQL lets a transaction be idle."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction, subscribe
from relaybox.db import Database, executor_of
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.events import REQUESTED, effects, make_event, publish, record_effect
from tests.fixtures.waiting import eventually

IDLE_MS = 300
_SESSION_IS_IDLE = """
    SELECT FROM pg_stat_activity
    WHERE datname = current_database() AND state = 'idle in transaction'
        AND now() - state_change > make_interval(secs => $1)
"""


@pytest.fixture
async def database(postgres_settings: PostgresSettings) -> AsyncIterator[Database]:
    """Connections whose transactions may be idle for 0.3 s."""
    settings = postgres_settings.model_copy(update={"idle_in_transaction_timeout_ms": IDLE_MS})
    database = Database(settings, application_name="test")
    yield database
    await database.close()


@pytest.fixture(autouse=True)
def no_retry_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))


async def test_handler_may_be_idle_until_its_time_limit(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    event = make_event()

    async def is_idle() -> bool:
        async with database.connection() as connection:
            return bool(await connection.fetch(_SESSION_IS_IDLE, 2 * IDLE_MS / 1_000))

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        await eventually("the transaction is idle for longer than its limit", is_idle)

    async with start_consumer(subscribe(REQUESTED, group=group)(handler)) as running:
        publish(kafka_settings, topic, [event])
        await running.signals.wait_for(ConsumerSignal.COMMITTED)
    assert await effects(database) == [event.event_id]


@pytest.mark.guarantee("G41")
async def test_idle_handler_that_hangs_is_parked(
    database: Database, kafka_settings: KafkaSettings, topic: str, group: str, start_consumer
) -> None:
    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await asyncio.Event().wait()

    subscription = subscribe(REQUESTED, group=group, handler_timeout_s=0.5)(handler)
    async with start_consumer(subscription) as running:
        waits_before_joining = running.signals.counts[ConsumerSignal.WAITING_FOR_DATABASE]
        publish(kafka_settings, topic, [make_event()])
        await running.signals.wait_for(ConsumerSignal.PARKED)
    async with database.connection() as connection:
        [letter] = await connection.fetch("SELECT error_code FROM dead_letters")
    assert letter["error_code"] == "HANDLER_TIMED_OUT"
    assert running.signals.counts[ConsumerSignal.WAITING_FOR_DATABASE] == waits_before_joining


async def test_error_of_the_work_is_not_hidden_by_a_broken_connection(database: Database) -> None:
    async def work(db: AsyncSession) -> None:
        [row] = await executor_of(db).fetch("SELECT pg_backend_pid() AS pid")
        async with database.connection() as connection:
            await connection.fetch("SELECT pg_terminate_backend($1)", row["pid"])

            async def has_ended() -> bool:
                sessions = "SELECT FROM pg_stat_activity WHERE pid = $1"
                return not await connection.fetch(sessions, row["pid"])

            await eventually("the session has ended", has_ended)
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        await database.run_in_transaction(work)
