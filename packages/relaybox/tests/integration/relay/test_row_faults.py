"""Rows that cannot be published are retried and then marked FAILED; other rows are published."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal

import pytest
from confluent_kafka import KafkaError, Producer
from relaybox.db import Database
from relaybox.relay import Relay, RelaySignal
from relaybox.relay._messages import record_bytes
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.relays import (
    first_appearances,
    notify,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.topic_config import limit_record_bytes

NO_POLL = RelaySettings(poll_interval=3_600)
LIMIT_BYTES = 4_000


@pytest.fixture
def narrow_topic(make_topic: Callable[..., str]) -> str:
    """Create a topic that accepts only small records."""
    return make_topic(max_message_bytes=str(LIMIT_BYTES))


@pytest.mark.guarantee("G24")
async def test_row_without_a_topic_fails_after_retries_while_its_key_waits(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, "no-such-topic", ["bad"])
    await put_events(database, topic, ["bad"], first=2)
    await put_events(database, topic, ["good"], count=3)
    signals = SignalRecorder()
    relay = Relay(database, kafka_settings, NO_POLL, on_signal=signals)
    async with running(relay):
        for attempt, after_s in enumerate((1, 2, 4), start=1):
            await signals.wait_for(RelaySignal.ROWS_CHARGED, attempt)
            [bad] = await rows_of(database, "topic = 'no-such-topic'")
            assert (bad["status"], bad["attempts"]) == ("PENDING", attempt)
            at = (await rows_at(database))[0]
            assert abs(bad["next_attempt_at"] - at - timedelta(seconds=after_s)) < timedelta(seconds=0.1)
        await signals.wait_for(RelaySignal.ROWS_CHARGED, 4)

    [bad] = await rows_of(database, "topic = 'no-such-topic'")
    assert (bad["status"], bad["attempts"], bad["next_attempt_at"]) == ("FAILED", 4, None)
    assert bad["error_data"].pop("at")
    assert bad["error_data"] == {
        "reason": "row",
        "class": "TopicUnknown",
        "message": "the broker has no topic 'no-such-topic'; create it, or check OUTBOX_TOPICS",
        "attempts": 4,
    }
    assert [row["status"] for row in await rows_of(database, "key = 'bad'")] == ["FAILED", "PENDING"]
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == {"good": [1, 2, 3]}
    look = relay.statistics()
    assert (look.published_total, look.retried_total, look.failed_total) == (3, 3, 1)


@pytest.mark.guarantee("G24")
@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
@pytest.mark.parametrize("chars", [250, 40_000])
async def test_row_whose_topic_name_is_too_long_fails_with_its_own_reason(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    chars: int,
    delivery: Literal["exactly-once", "at-least-once"],
) -> None:
    await put_events(database, "t" * chars, ["bad"])
    await put_events(database, topic, ["good"], count=3)
    signals = SignalRecorder()
    settings = RelaySettings(poll_interval=3_600, delivery=delivery)
    async with running(Relay(database, kafka_settings, settings, on_signal=signals)):
        await signals.wait_for(RelaySignal.ROWS_CHARGED, 4)
        await rows_sent(database, 3)

    [bad] = await rows_of(database, "key = 'bad'")
    assert (bad["status"], bad["attempts"]) == ("FAILED", 4)
    assert (bad["error_data"]["reason"], bad["error_data"]["class"]) == ("row", "TopicNameTooLong")
    assert f"has {chars} characters, Kafka allows 249" in bad["error_data"]["message"]
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == {"good": [1, 2, 3]}


@pytest.mark.guarantee("G24")
async def test_row_that_becomes_publishable_precedes_the_rows_behind_it(
    database: Database, kafka_settings: KafkaSettings, narrow_topic: str
) -> None:
    await put_events(database, narrow_topic, ["a"], first=1)
    await put_events(database, narrow_topic, ["a"], first=2, size=LIMIT_BYTES)
    await put_events(database, narrow_topic, ["a"], first=3)
    signals = SignalRecorder()
    async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
        await signals.wait_for(RelaySignal.ROWS_CHARGED)
        async with database.connection() as connection:
            await connection.fetch(
                "UPDATE event_outbox SET payload = jsonb_set(payload, '{payload,text}', '\"short\"')"
            )
        await wait_until_all_sent(database)

    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, narrow_topic)) == {"a": [1, 2, 3]}
    assert {row["attempts"] for row in await rows_of(database)} == {0, 1}


@pytest.mark.guarantee("G34")
@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
async def test_raised_limit_is_used_at_the_next_attempt(
    database: Database,
    kafka_settings: KafkaSettings,
    narrow_topic: str,
    delivery: Literal["exactly-once", "at-least-once"],
) -> None:
    await put_events(database, narrow_topic, ["a"], first=1, size=LIMIT_BYTES)
    await put_events(database, narrow_topic, ["a"], first=2)
    signals = SignalRecorder()
    settings = RelaySettings(poll_interval=3_600, compression="none", delivery=delivery)
    async with running(Relay(database, kafka_settings, settings, on_signal=signals)):
        await signals.wait_for(RelaySignal.ROWS_CHARGED)
        limit_record_bytes(kafka_settings, narrow_topic, 10 * LIMIT_BYTES)
        await wait_until_all_sent(database)

    assert [row["attempts"] for row in await rows_of(database, "status = 'SENT'")] == [1, 0]
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, narrow_topic)) == {"a": [1, 2]}


@pytest.mark.guarantee("G34")
async def test_too_large_row_is_found_before_rows_behind_it_are_sent(
    database: Database, kafka_settings: KafkaSettings, narrow_topic: str
) -> None:
    await put_events(database, narrow_topic, ["a", "b"], first=1, size=1_000)
    await put_events(database, narrow_topic, ["a"], first=2, size=LIMIT_BYTES)
    await put_events(database, narrow_topic, ["a", "b"], first=3, size=1_000, count=8)
    signals = SignalRecorder()
    async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
        await signals.wait_for(RelaySignal.ROWS_CHARGED)
        await rows_sent(database, 10)

    records = read_topic(kafka_settings.bootstrap_servers, narrow_topic)
    assert first_appearances(records) == {"a": [1], "b": [1, *range(3, 11)]}
    [large] = await rows_of(database, "attempts > 0")
    assert large["error_data"]["class"] == "RecordTooLarge"


@pytest.mark.guarantee("G34")
async def test_limit_lowered_during_publishing_fails_only_the_large_row(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    signals = SignalRecorder()
    # Compressed, the large row is below the limit.
    settings = RelaySettings(poll_interval=3_600, compression="none")
    relay = Relay(database, kafka_settings, settings, on_signal=signals)
    async with running(relay):
        await signals.wait_for(RelaySignal.LANES_CHANGED)
        await signals.wait_for_next(RelaySignal.IDLE)
        limit_record_bytes(kafka_settings, topic, LIMIT_BYTES)
        async with database.connection() as connection:
            await put_events(connection, topic, ["a"], first=1, size=100)
            await put_events(connection, topic, ["a"], first=2, size=LIMIT_BYTES)
            await put_events(connection, topic, ["a", "b"], first=3, count=5)
        await notify(database)
        await signals.wait_for(RelaySignal.ROWS_CHARGED)
        await rows_sent(database, 6)

    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == {
        "a": [1],
        "b": [3, 4, 5, 6, 7],
    }
    [large] = await rows_of(database, "attempts > 0")
    assert large["payload"]["version"] == 2
    assert relay.statistics().link_outages_total == 0


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
async def test_rows_fetched_ahead_do_not_overtake_a_rejected_row(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    delivery: Literal["exactly-once", "at-least-once"],
) -> None:
    signals = SignalRecorder()
    settings = RelaySettings(poll_interval=3_600, compression="none", batch_size=10, delivery=delivery)
    async with running(Relay(database, kafka_settings, settings, on_signal=signals)):
        await signals.wait_for(RelaySignal.LANES_CHANGED)
        await signals.wait_for_next(RelaySignal.IDLE)
        limit_record_bytes(kafka_settings, topic, LIMIT_BYTES)
        await put_events(database, topic, ["a", "b"], first=1, count=300)
        await put_events(database, topic, ["a"], first=301, size=LIMIT_BYTES)
        await put_events(database, topic, ["a", "b"], first=302, count=1_200)
        await notify(database)
        await signals.wait_for(RelaySignal.ROWS_CHARGED)
        await rows_sent(database, 300 + 300 + 1_200)

    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == {
        "a": [*range(1, 301)],
        "b": [*range(1, 301), *range(302, 1_502)],
    }


@pytest.mark.guarantee("G34")
@pytest.mark.parametrize("key", [None, b"", "学".encode()])
@pytest.mark.parametrize("value_bytes", [40, 1_000])
def test_relay_and_broker_compute_the_same_record_size(
    kafka_settings: KafkaSettings, make_topic: Callable[..., str], key: bytes | None, value_bytes: int
) -> None:
    value, headers = b"x" * value_bytes, [("ce_id", "学" * 30), ("content-type", "application/json")]
    size = record_bytes(key, value, headers)

    def accepted(limit: int) -> bool:
        reports: list[KafkaError | None] = []
        producer = Producer({"bootstrap.servers": kafka_settings.bootstrap_servers, "log_level": 0})
        topic = make_topic(max_message_bytes=str(limit))
        note: Any = lambda error, _: reports.append(error)  # noqa: E731
        producer.produce(topic, value, key, headers=headers, on_delivery=note)
        producer.flush(WAIT_S)
        [error] = reports
        assert error is None or error.code() == KafkaError.MSG_SIZE_TOO_LARGE
        return error is None

    assert (accepted(size), accepted(size - 1)) == (True, False)


async def rows_sent(database: Database, count: int) -> None:
    """Wait until the given number of rows is SENT."""
    async with asyncio.timeout(WAIT_S):
        while len(await rows_of(database, "status = 'SENT'")) < count:  # noqa: ASYNC110 - no signal reports it
            await asyncio.sleep(0.02)


async def rows_at(database: Database) -> list[object]:
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT (error_data ->> 'at')::timestamptz AS at FROM event_outbox WHERE error_data IS NOT NULL"
        )
    return [row["at"] for row in rows]
