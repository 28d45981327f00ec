"""State of relays and lanes, and actions of operators on lanes."""

import os
import uuid

import pytest
from relaybox.db import Database
from relaybox.operations import (
    LanesRefused,
    MarkerRefused,
    RelayStatus,
    accept_marker,
    relay_status,
    request_lanes,
    skip,
)
from relaybox.operations import Selection as Rows
from relaybox.relay import LANES_CHANNEL, Relay, RelaySignal
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.outbox_rows import delay_row, fail_rows, operator_acts
from tests.fixtures.relays import put_events, running, wait_until_all_sent
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

NO_POLL = RelaySettings(poll_interval=3_600)
KEYS = [f"key-{number}" for number in range(40)]


async def test_status_has_relays_lanes_and_backlog(database: Database, kafka_settings: KafkaSettings) -> None:
    signals = [SignalRecorder(), SignalRecorder()]
    first, second = (Relay(database, kafka_settings, NO_POLL, on_signal=each) for each in signals)
    async with database.connection() as connection, running(first, second):
        for each in signals:
            await each.wait_for(RelaySignal.LANES_CHANGED)
        status = await relay_status(connection)

    assert len(status.relays) == 2
    assert all(relay.lease_s > 0 for relay in status.relays)
    owned = [lane.owner for lane in status.lanes if lane.owner is not None]
    assert {relay.name: relay.lanes for relay in status.relays} == {
        relay.name: owned.count(relay.name) for relay in status.relays
    }
    assert (len(status.lanes), status.lanes_wanted) == (8, 8)
    assert status.lanes[0].hash_min == -(2**31)
    assert status.lanes[-1].hash_max == 2**31 - 1


async def test_status_has_place_delivery_and_count_of_a_relay(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    await put_events(database, topic, KEYS, count=2)
    async with database.connection() as connection, running(Relay(database, kafka_settings, NO_POLL)):
        await wait_until_all_sent(database)

        async def described() -> RelayStatus | None:
            [relay] = (await relay_status(connection)).relays
            return relay if relay.published_total == len(KEYS) * 2 else None

        relay = await eventually("a heartbeat with all fields", described)
    assert (relay.delivery, relay.breaker) == (NO_POLL.delivery, "closed")
    assert relay.place.endswith(f":{os.getpid()}")


async def test_status_counts_pending_rows_by_lane(database: Database) -> None:
    async with database.connection() as connection:
        empty = await relay_status(connection)
        await put_events(connection, "domain-events", KEYS, count=2)
        await fail_rows(database, 1, 2)
        await delay_row(database, 3)
        await skip(connection, Rows(seqs=[1]), by="ann", reason="test")
        status = await relay_status(connection)
        expected = await connection.fetch(
            "SELECT lane, count(seq) FROM relay_lanes LEFT JOIN event_outbox ON status = 'PENDING'"
            " AND key_hash BETWEEN hash_min AND hash_max GROUP BY lane ORDER BY lane"
        )
    assert (empty.pending, empty.oldest_pending_s, empty.relays) == (0, None, [])
    assert (status.pending, status.retrying, status.failed, status.skipped) == (78, 1, 1, 1)
    assert status.oldest_pending_s is not None
    assert [(lane.lane, lane.pending) for lane in status.lanes] == [tuple(row.values()) for row in expected]
    assert all((lane.oldest_s is None) == (lane.pending == 0) for lane in status.lanes)


async def test_status_is_correct_while_lanes_are_split(database: Database) -> None:
    async with database.connection() as connection:
        await connection.fetch("UPDATE relay_lanes SET hash_max = -2147483648 + 268435455 WHERE lane = 0")
        await connection.fetch(
            "INSERT INTO relay_lanes (lane, hash_min, hash_max)"
            " VALUES (8, -2147483648 + 268435456, -2147483648 + 536870911)"
        )
        await put_events(connection, "domain-events", KEYS)
        status = await relay_status(connection)
        expected = await connection.fetch(
            "SELECT lane, count(seq) FROM relay_lanes LEFT JOIN event_outbox"
            " ON key_hash BETWEEN hash_min AND hash_max GROUP BY lane ORDER BY lane"
        )
    assert [(lane.lane, lane.pending) for lane in status.lanes] == [tuple(row.values()) for row in expected]


@pytest.mark.guarantee("G32")
async def test_request_for_lanes_is_recorded_and_notified(database: Database) -> None:
    notified: list[str] = []
    listener = await database.dedicated()
    await listener.add_listener(
        LANES_CHANNEL, lambda _connection, _pid, channel, _payload: notified.append(channel)
    )
    async with database.connection() as connection:
        assert await request_lanes(connection, 32, by="ann", reason="more relays") == 8
        assert await request_lanes(connection, 32, by="ann") == 32
        with pytest.raises(LanesRefused):
            await request_lanes(connection, 48, by="ann")
        assert (await relay_status(connection)).lanes_wanted == 32
    await listener.fetch("SELECT 1")  # earlier notifications arrive with this response
    listener.terminate()
    assert notified == [LANES_CHANNEL]
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "lanes", "more relays")
    assert act["target"] == {"lanes_before": 8, "lanes_wanted": 32}


@pytest.mark.guarantee("G32")
async def test_lane_accepts_only_the_marker_of_its_fault(
    database: Database,
) -> None:
    marker, fault = uuid.uuid4(), "Kafka holds marker {}, which the database does not know"
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE relay_lanes SET fault = $1 WHERE lane = 3", fault.format(str(marker).upper())
        )
        for lane, other in ((3, uuid.uuid4()), (2, marker), (99, marker)):
            with pytest.raises(MarkerRefused, match=f"lane {lane} "):
                await accept_marker(connection, lane, other, by="ann", reason="test")
        await accept_marker(connection, 3, marker, by="ann", reason="restored from a backup")
        [lane] = await connection.fetch("SELECT fault, accepted_marker FROM relay_lanes WHERE lane = 3")
    assert (lane["fault"], lane["accepted_marker"]) == (None, marker)
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "accept", "restored from a backup")
    assert (act["target"]["lane"], act["target"]["marker"]) == (3, str(marker))
    assert str(marker).upper() in act["target"]["fault"]
