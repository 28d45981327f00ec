"""Replays of many dead letters."""

import asyncio
import hashlib
from uuid import UUID

import asyncpg
import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction, subscribe
from relaybox.db import Database, executor_of
from relaybox.settings import KafkaSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, effects, make_event, publish, record_effect
from tests.fixtures.letters import letter_rows, park_letters


@pytest.fixture(autouse=True)
def no_time_limit_of_shared_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._replayer._SHARED_S", WAIT_S)


@pytest.fixture(autouse=True)
def no_retry_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))


@pytest.mark.guarantee("G42")
async def test_keys_that_cannot_be_replayed_do_not_hide_the_keys_behind(
    database: Database,
    topic: str,
    group: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first letters of these keys are not requested, as after a replay that failed."""
    monkeypatch.setattr("relaybox.consumers._dead_letters._KEYS_MAX", 2)
    keys = sorted(map(str, range(7)), key=lambda key: hashlib.sha256(key.encode()).digest())
    for key in keys:
        await park_letters(database, key, count=2, group=group)
    async with database.connection() as connection:
        await connection.fetch("UPDATE dead_letters SET topic = $1", topic)
        await connection.fetch(
            "UPDATE dead_letters SET status = 'REPLAY_REQUESTED' "
            "WHERE reason = 'BLOCKED' OR message_key = $1",
            keys[-1].encode(),
        )
    async with start_consumer(record_effect) as running:
        await running.signals.wait_for(ConsumerSignal.REPLAYED, 2)
    last = [row for row in await letter_rows(database) if row["message_key"] == keys[-1].encode()]
    assert await effects(database) == [row["event_id"] for row in last]


@pytest.mark.guarantee("G42")
async def test_replay_that_always_gets_a_database_error_ends(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    group: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    monkeypatch.setattr("relaybox.consumers._policy._DATABASE_PAUSE_S_MAX", 0.1)
    monkeypatch.setattr("relaybox.consumers._policy._ISOLATED_FAILURES_MAX", 2)
    await park_letters(database, "a", count=2, group=group)
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE dead_letters SET topic = $1, status = CASE reason WHEN 'BLOCKED' THEN 'PARKED' "
            "ELSE 'REPLAY_REQUESTED' END::dead_letter_status",
            topic,
        )

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event.aggregate_id == "a":
            await executor_of(unit.db).fetch("SET LOCAL statement_timeout = 1")
            await executor_of(unit.db).fetch("SELECT pg_sleep(10)")

    async with asyncio.timeout(WAIT_S), start_consumer(handler) as running:
        number = 0
        while not running.signals.counts[ConsumerSignal.REPLAY_FAILED]:
            number += 1
            publish(kafka_settings, topic, [make_event(aggregate_id="b")])
            await running.signals.wait_for(ConsumerSignal.COMMITTED, number)
    assert {row["status"] for row in await letter_rows(database)} == {"PARKED"}
    assert len(await effects(database)) == number


async def park_requested(database: Database, topic: str, group: str, count: int) -> list[UUID]:
    """Park messages of one key with the replay of the first one requested; return the ids of their events."""
    await park_letters(database, "a", count=count, group=group)
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE dead_letters SET topic = $1, status = CASE reason WHEN 'BLOCKED' THEN 'PARKED' "
            "ELSE 'REPLAY_REQUESTED' END::dead_letter_status",
            topic,
        )
    return [row["event_id"] for row in await letter_rows(database)]


async def transactions(database: Database) -> int:
    """Return the number of transactions that wrote the effects."""
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT count(DISTINCT xmin::text) AS transactions FROM effects")
    return row["transactions"]


@pytest.mark.guarantee("G42")
@pytest.mark.parametrize(("events_max", "expected"), [(1, 20), (10, 2)])
async def test_letters_of_a_key_share_transactions_if_the_subscription_does(
    events_max: int, expected: int, database: Database, topic: str, group: str, start_consumer
) -> None:
    ids = await park_requested(database, topic, group, 20)
    subscription = subscribe(REQUESTED, group=group, transaction_events_max=events_max)(record_effect)
    async with start_consumer(subscription) as running:
        await running.signals.wait_for(ConsumerSignal.REPLAYED, 20)
    assert await effects(database) == ids
    assert await transactions(database) == expected


@pytest.mark.guarantee("G41", "G42")
async def test_letter_that_fails_in_a_shared_transaction_fails_alone(
    database: Database, topic: str, group: str, start_consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    ids = await park_requested(database, topic, group, 10)

    async def handler(event: EventEnvelope, unit: EventTransaction) -> None:
        await record_effect(event, unit)
        if event.event_id == ids[6]:
            raise RuntimeError

    subscription = subscribe(REQUESTED, group=group, transaction_events_max=10)(handler)
    async with start_consumer(subscription) as running:
        await running.signals.wait_for(ConsumerSignal.REPLAY_FAILED)
    assert await effects(database) == ids[:6]
    rows = await letter_rows(database)
    assert [row["status"] for row in rows] == ["REPLAYED"] * 6 + ["PARKED"] * 4
    assert [row["reason"] for row in rows[6:]] == ["HANDLER_FAILED", *["BLOCKED"] * 3]
    assert rows[6]["attempts"] == 4


@pytest.mark.guarantee("G41", "G42")
async def test_letter_that_fails_at_a_shared_commit_is_found(
    database: Database,
    superuser: asyncpg.Connection,
    topic: str,
    group: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    ids = await park_requested(database, topic, group, 10)
    subscription = subscribe(REQUESTED, group=group, transaction_events_max=10)(record_effect)
    await superuser.execute(
        f"""
        CREATE FUNCTION reject() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.event_id = '{ids[6]}' THEN RAISE 'rejected at COMMIT'; END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER reject AFTER INSERT ON effects DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION reject()
        """
    )
    async with start_consumer(subscription) as running:
        await running.signals.wait_for(ConsumerSignal.REPLAY_FAILED)
    assert await effects(database) == ids[:6]
