"""Readers of committed messages get each event once despite kills (G31); outages affect few rows (G25)."""

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Literal

import pytest
from confluent_kafka import Producer
from relaybox.db import Database, DatabaseUnavailable
from relaybox.local import LocalKafka
from relaybox.relay import Relay, RelaySignal, _exactly_once, _transaction
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.relays import (
    COUNT_BEYOND_TWO_MARKS,
    StartRelay,
    first_appearances,
    notify,
    put_events,
    read_topic,
    rows_of,
    running,
    wait_until_all_sent,
)
from tests.fixtures.signal_recorder import SignalRecorder

KEYS = [f"key-{number}" for number in range(30)]
COUNT = 40
NO_POLL = RelaySettings(poll_interval=3_600)


def once_in_order(kafka: KafkaSettings, topic: str, count: int) -> None:
    """Assert that read_committed consumers get *count* events of each key once and in order."""
    records = read_topic(kafka.bootstrap_servers, topic)
    assert first_appearances(records) == {key: list(range(1, count + 1)) for key in KEYS}
    assert len(records) == len(KEYS) * count


@pytest.mark.guarantee("G31")
@pytest.mark.parametrize(
    "moment", ["batch_taken:2", "batch_claimed:2", "batch_published:1", "batch_published:4", "batch_marked:2"]
)
async def test_successor_of_a_killed_relay_publishes_nothing_twice(
    database: Database, kafka_settings: KafkaSettings, topic: str, make_relay: StartRelay, moment: str
) -> None:
    count = COUNT_BEYOND_TWO_MARKS if "marked" in moment else COUNT
    await put_events(database, topic, KEYS, count=count)
    victim = make_relay(die_at=moment)
    await victim.start()
    assert await victim.wait_for_exit() == -signal.SIGKILL
    assert await rows_of(database, "status = 'PENDING'"), "it was killed too late"

    await make_relay().start()
    await wait_until_all_sent(database)
    once_in_order(kafka_settings, topic, count)


@pytest.mark.guarantee("G31")
async def test_frozen_relay_that_lost_its_lanes_is_fenced_by_the_broker(
    database: Database, kafka_settings: KafkaSettings, topic: str, make_relay: StartRelay
) -> None:
    await put_events(database, topic, KEYS, count=COUNT)
    frozen = make_relay(freeze_at="batch_claimed:2")
    await frozen.start()
    await frozen.wait_until_frozen()
    await make_relay().start()
    await wait_until_all_sent(database)

    frozen.send(signal.SIGCONT)
    await frozen.wait_for(RelaySignal.LANES_CHANGED)
    await put_events(database, topic, KEYS, first=COUNT + 1)
    await notify(database)
    await wait_until_all_sent(database)
    once_in_order(kafka_settings, topic, COUNT + 1)


@pytest.mark.guarantee("G31")
async def test_unclaimed_batch_is_aborted_and_published_once(
    database: Database, kafka_settings: KafkaSettings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim, refused = _exactly_once.claim, [DatabaseUnavailable("away"), DatabaseUnavailable("still away")]

    async def claim_in_the_end(*args: Any) -> dict[int, int]:
        if refused:
            raise refused.pop()
        return await claim(*args)

    monkeypatch.setattr(_exactly_once, "claim", claim_in_the_end)
    await put_events(database, topic, KEYS, count=COUNT)
    async with running(Relay(database, kafka_settings, NO_POLL)):
        await wait_until_all_sent(database)
    assert refused == []
    once_in_order(kafka_settings, topic, COUNT)


@pytest.mark.guarantee("G31")
async def test_lane_with_contradictory_marker_stops_until_accepted(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, topic, KEYS)
    async with running(Relay(database, kafka_settings, NO_POLL)):
        await wait_until_all_sent(database)
    async with database.connection() as connection:
        # Imitates a database that was restored from before lane 0's last batch.
        await connection.fetch("DELETE FROM relay_batches WHERE lane = 0")
        await connection.fetch("UPDATE event_outbox SET status = 'PENDING', sent_at = NULL")
        everything = [row["seq"] for row in await connection.fetch("SELECT seq FROM event_outbox")]
        async with running(Relay(database, kafka_settings, NO_POLL)):
            fault = await _fault_of_lane_0(database)
            assert "relaybox relay accept" in fault
            await _pending_only_in_lane_0(database)
            marker = next(word for word in fault.replace(",", " ").split() if word.count("-") == 4)
            await connection.fetch(
                "UPDATE relay_lanes SET accepted_marker = $1::text::uuid, fault = NULL WHERE lane = 0", marker
            )
            await wait_until_all_sent(database)
    assert len(everything) == len(KEYS)


async def _fault_of_lane_0(database: Database) -> str:
    async with asyncio.timeout(WAIT_S), database.connection() as connection:
        while True:
            [row] = await connection.fetch("SELECT fault FROM relay_lanes WHERE lane = 0")
            if row["fault"]:
                return row["fault"]
            await asyncio.sleep(0.05)


async def _pending_only_in_lane_0(database: Database) -> None:
    """Assert that only lane 0 has PENDING rows, because the other lanes continue."""
    outside = "status = 'PENDING' AND key_hash > (SELECT hash_max FROM relay_lanes WHERE lane = 0)"
    async with asyncio.timeout(WAIT_S):
        while await rows_of(database, outside):  # noqa: ASYNC110 - the database announces nothing
            await asyncio.sleep(0.05)
    assert await rows_of(database, "status = 'PENDING'"), "no key was in lane 0"


@pytest.mark.guarantee("G26")
async def test_relay_with_a_hanging_kafka_call_ends_and_frees_its_lanes(
    database: Database,
    kafka_settings: KafkaSettings,
    kafka_server: LocalKafka,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = asyncio.Event()
    statuses: list[int] = []

    def end(status: int) -> None:
        statuses.append(status)
        ended.set()

    monkeypatch.setattr("relaybox.kafka._HUNG_S", 0.5)
    monkeypatch.setattr("relaybox.relay._relay.os._exit", end)
    signals = SignalRecorder()
    async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
        await signals.wait_for(RelaySignal.IDLE)
        kafka_server.pause()
        try:
            await put_events(database, topic, KEYS)
            await notify(database)
            await asyncio.wait_for(ended.wait(), WAIT_S)
        finally:
            kafka_server.resume()
        await wait_until_all_sent(database)
    assert set(statuses) == {70}


@pytest.mark.guarantee("G26")
async def test_relay_whose_takeover_hangs_ends(
    database: Database,
    kafka_settings: KafkaSettings,
    kafka_server: LocalKafka,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = asyncio.Event()
    monkeypatch.setattr("relaybox.kafka._HUNG_S", 0.5)
    monkeypatch.setattr("relaybox.relay._relay.os._exit", lambda _status: ended.set())
    signals = SignalRecorder()
    async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
        await signals.wait_for(RelaySignal.IDLE)
        lanes_taken = signals.wait_for_next(RelaySignal.LANES_CHANGED)
        kafka_server.pause()
        try:
            async with database.connection() as connection:
                await connection.fetch("UPDATE relay_lanes SET owner = NULL, lease_until = NULL")
            await lanes_taken
            await asyncio.wait_for(ended.wait(), WAIT_S)
        finally:
            kafka_server.resume()


@pytest.mark.guarantee("G25")
@pytest.mark.parametrize(
    "delivery", [pytest.param("exactly-once"), pytest.param("at-least-once", marks=pytest.mark.long)]
)
async def test_outage_fails_only_rows_in_flight_and_recovers(
    database: Database,
    kafka_settings: KafkaSettings,
    kafka_server: LocalKafka,
    topic: str,
    delivery: Literal["exactly-once", "at-least-once"],
) -> None:
    signals = SignalRecorder()
    settings = RelaySettings(poll_interval=3_600, delivery=delivery)
    relay = Relay(database, kafka_settings, settings, on_signal=signals)
    async with running(relay):
        await put_events(database, topic, KEYS)
        await notify(database)
        await wait_until_all_sent(database)
        down, charges = signals.wait_for_next(RelaySignal.LINK_DOWN), 0
        kafka_server.pause()
        try:
            await put_events(database, topic, KEYS[:5], first=2)
            await notify(database)
            await down
            await put_events(database, topic, KEYS, first=3)
            await notify(database)
            while not await rows_of(database, "status = 'FAILED'"):
                charges += 1
                await signals.wait_for(RelaySignal.ROWS_CHARGED, charges)
            failed = await rows_of(database, "status = 'FAILED'")
            assert {row["error_data"]["reason"] for row in failed} == {"link"}
            assert {row["attempts"] for row in failed} == {4}
            assert {row["payload"]["version"] for row in failed} == {2}
            others = await rows_of(database, "payload ->> 'version' = '3'")
            assert {(row["status"], row["attempts"]) for row in others} == {("PENDING", 0)}
        finally:
            kafka_server.resume()
        await signals.wait_for(RelaySignal.LINK_UP)
        await _all_of(database, "SENT")
    records = read_topic(kafka_settings.bootstrap_servers, topic)
    expected = {key: [1, 2, 3] if key in KEYS[:5] else [1, 3] for key in KEYS}
    assert first_appearances(records) == expected
    assert {row["attempts"] for row in await rows_of(database)} == {0}


@pytest.mark.guarantee("G25")
async def test_rows_of_a_commit_without_response_are_charged_no_attempt(
    database: Database,
    kafka_settings: KafkaSettings,
    kafka_server: LocalKafka,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    signals = SignalRecorder()
    relay = Relay(database, kafka_settings, NO_POLL, on_signal=signals)
    flush = _transaction.flush

    def flush_and_freeze(producer: Producer, give_up_at_s: Callable[[], float]) -> bool:
        """All records are acknowledged; the commit gets no response."""
        flushed = flush(producer, give_up_at_s)
        kafka_server.pause()
        return flushed

    async with running(relay):
        await put_events(database, topic, KEYS)
        await notify(database)
        await wait_until_all_sent(database)
        # On a slow machine there may have been an attempt before.
        down = signals.wait_for_next(RelaySignal.LINK_DOWN)
        monkeypatch.setattr(_transaction, "_COMMIT_S", 0.5)
        monkeypatch.setattr(_transaction, "_COMMIT_S_MAX", 0.5)
        monkeypatch.setattr(_transaction, "flush", flush_and_freeze)
        try:
            await put_events(database, topic, KEYS[:1], first=2)
            await notify(database)
            await down
            monkeypatch.undo()
        finally:
            kafka_server.resume()
        await put_events(database, topic, KEYS, first=3)
        await notify(database)
        await wait_until_all_sent(database)
        assert relay.statistics().retried_total == 0
    records = read_topic(kafka_settings.bootstrap_servers, topic)
    expected = {key: [1, 2, 3] if key in KEYS[:1] else [1, 3] for key in KEYS}
    assert first_appearances(records) == expected
    assert len(records) == 2 * len(KEYS) + 1


async def _all_of(database: Database, status: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while await rows_of(database, f"status <> '{status}'"):  # noqa: ASYNC110 - the database announces nothing
            await asyncio.sleep(0.05)
