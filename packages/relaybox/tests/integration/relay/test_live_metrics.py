"""The relay's metrics follow what happens, on a real PostgreSQL and a real Kafka."""

import pytest
from prometheus_client import CollectorRegistry
from relaybox.db import Database
from relaybox.relay import Backlog, BreakerState, Relay, RelayCollector, RelaySignal
from relaybox.relay._postgres import connected, measure_backlog
from relaybox.relay._statistics import Counters
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.relays import notify, put_events, running, wait_until_all_sent
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

_FAIL = """
    UPDATE event_outbox SET status = 'FAILED', error_data = jsonb_build_object('reason', $3::text),
                            skipped_at = CASE WHEN $4 THEN now() END
    WHERE key = ANY ($1::text[]) AND (payload ->> 'version')::int = ANY ($2::int[])
"""
_RETRY = """
    UPDATE event_outbox SET next_attempt_at = now() + interval '1 h',
                            error_data = jsonb_build_object('reason', $2::text)
    WHERE key = ANY ($1::text[])
"""


async def measured(database: Database) -> Backlog:
    counters = Counters()
    async with connected(database) as connection:
        await measure_backlog(connection, counters)
    return counters.backlog


async def aged(database: Database, key: str, seconds: int) -> None:
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE event_outbox SET created_at = now() - make_interval(secs => $2) WHERE key = $1",
            key,
            seconds,
        )


async def test_backlog_of_an_empty_outbox_has_only_lanes(database: Database) -> None:
    assert await measured(database) == Backlog(lanes=8)


async def test_backlog_counts_waiting_rows_by_state_and_fault(database: Database) -> None:
    await put_events(database, "domain-events", ["a", "b", "c"], count=3)
    await put_events(database, "domain-events", ["d", "e", "skipped"])
    async with database.connection() as connection:
        await connection.fetch(_FAIL, ["a"], [1, 2], "row", False)
        await connection.fetch(_FAIL, ["b"], [1], "link", False)
        await connection.fetch(_FAIL, ["skipped"], [1], "row", True)
        await connection.fetch(_RETRY, ["d"], "row")
        await connection.fetch(_RETRY, ["e"], "link")
        await connection.fetch("UPDATE relay_lanes SET fault = 'a record is missing' WHERE lane = 3")
    found = await measured(database)
    assert (found.pending, found.retrying_row, found.retrying_link) == (8, 1, 1)
    assert (found.failed_row, found.failed_link, found.skipped) == (2, 1, 1)
    assert found.keys_blocked == 2
    assert (found.lanes, found.lanes_faulty) == (8, 1)


async def test_row_behind_a_failed_row_counts_as_oldest_but_not_as_due(database: Database) -> None:
    await put_events(database, "domain-events", ["blocked"], count=2)
    async with database.connection() as connection:
        await connection.fetch(_FAIL, ["blocked"], [1], "row", False)
    await aged(database, "blocked", 3_600)
    found = await measured(database)
    assert found.oldest_pending_s > 3_599
    assert found.oldest_due_s == 0

    await put_events(database, "domain-events", ["free"])
    await aged(database, "free", 60)
    found = await measured(database)
    assert found.oldest_pending_s > 3_599
    assert 59 < found.oldest_due_s < 3_600


async def test_statistics_count_published_and_failed_rows(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, "no-such-topic", ["bad"])
    async with database.connection() as connection:
        await connection.fetch("UPDATE event_outbox SET attempts = 3")  # the last attempt
    await put_events(database, topic, ["bad"], first=2)
    await put_events(database, topic, ["good"], count=5)
    relay = Relay(database, kafka_settings, RelaySettings(poll_interval=0.1, lease_s=0.9))
    registry = CollectorRegistry()
    registry.register(RelayCollector(relay.statistics))

    def told(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"relaybox_relay_{name}", labels)

    async def blocked() -> bool:
        return told("keys_blocked") == 1 and told("pending_rows") == 1

    async with running(relay):
        await eventually("the blocked key is counted", blocked)
        assert told("published_total") == told("batch_rows_sum") == 5
        assert told("failed_total") == told("failed_rows", reason="row") == 1
        assert told("lanes_owned") == told("lanes") == 8
        assert told("breaker_state", state=BreakerState.CLOSED) == 1
        assert told("oldest_due_seconds") == 0
        assert told("order_violations_total") == told("late_rows_total") == 0


@pytest.mark.guarantee("G28")
async def test_statistics_count_rows_found_only_by_polls(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    signals = SignalRecorder()
    relay = Relay(database, kafka_settings, RelaySettings(poll_interval=0.2), on_signal=signals)
    async with running(relay):
        await signals.wait_for(RelaySignal.LANES_CHANGED)
        await signals.wait_for_next(RelaySignal.IDLE)
        await put_events(database, topic, ["a", "b"])
        await wait_until_all_sent(database)
        assert relay.statistics().polled_total == 2
    relay = Relay(database, kafka_settings, RelaySettings(poll_interval=3_600), on_signal=signals)
    async with running(relay):
        await signals.wait_for_next(RelaySignal.LANES_CHANGED)
        await signals.wait_for_next(RelaySignal.IDLE)
        await put_events(database, topic, ["a", "b"], first=2)
        await notify(database)
        await wait_until_all_sent(database)
        assert relay.statistics().polled_total == 0
