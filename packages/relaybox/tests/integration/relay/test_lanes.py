"""Several relays share the lanes without configuration; a relay that lost a lane cannot mark its rows."""

import asyncio
from typing import Any, Literal

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.relay import Relay, RelaySignal
from relaybox.relay._errors import TopicUnknown
from relaybox.relay._lanes import Lanes
from relaybox.relay._postgres import Lane, charge_for, charge_rows, fetch_batch, mark_sent
from relaybox.relay._statistics import Counters
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
from tests.fixtures.waiting import eventually

NO_POLL = RelaySettings(poll_interval=3_600)
#: The backoff is asked for the next retry directly before the relay waits.
_WAITS = "SELECT FROM pg_stat_activity WHERE query LIKE '%AS due_s%' AND state = 'idle' AND query_start > $1"
KEYS = [f"key-{number}" for number in range(40)]


async def shared(signals: list[SignalRecorder], relays: list[Relay], lanes: list[int]) -> None:
    """Wait until each relay owns the given number of lanes."""
    async with asyncio.timeout(WAIT_S):
        while sorted(len(relay.statistics().lanes) for relay in relays) != sorted(lanes):
            changed = RelaySignal.LANES_CHANGED
            waits = [
                asyncio.create_task(each.wait_for(changed, each.counts[changed] + 1)) for each in signals
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for wait in waits:
                wait.cancel()


@pytest.mark.guarantee("G26")
async def test_relays_that_start_and_stop_share_the_lanes(
    database: Database, kafka_settings: KafkaSettings
) -> None:
    signals = [SignalRecorder(), SignalRecorder(), SignalRecorder()]
    first, second, third = (Relay(database, kafka_settings, NO_POLL, on_signal=each) for each in signals)
    async with running(first):
        await shared(signals, [first], [8])
        async with running(second):
            await shared(signals, [first, second], [4, 4])
            async with running(third):
                await shared(signals, [first, second, third], [2, 3, 3])
            await shared(signals, [first, second], [4, 4])
        await shared(signals, [first], [8])


@pytest.mark.guarantee("G26")
async def test_relay_publishes_after_a_late_heartbeat_has_renewed_its_lanes(
    database: Database, kafka_settings: KafkaSettings, topic: str, superuser: asyncpg.Connection
) -> None:
    settings, signals = RelaySettings(poll_interval=3_600, lease_s=0.6), SignalRecorder()
    async with running(Relay(database, kafka_settings, settings, on_signal=signals)):
        await signals.wait_for(RelaySignal.IDLE)
        async with superuser.transaction():
            await superuser.execute("LOCK TABLE relay_members IN EXCLUSIVE MODE")

            async def expired() -> bool:
                return await superuser.fetchval(
                    "SELECT max(lease_until) < clock_timestamp() FROM relay_lanes"
                )

            await eventually("the leases have ended", expired)
            before = await superuser.fetchval("SELECT clock_timestamp()")
            await put_events(database, topic, ["a"])
            await notify(database)

            async def looked() -> bool:
                async with database.connection() as connection:
                    return bool(await connection.fetch(_WAITS, before))

            await eventually("the relay has found no lane to publish from, and waits", looked)
        await signals.wait_for(RelaySignal.BATCH_MARKED)


@pytest.mark.guarantee("G21")
async def test_three_relays_keep_key_order_while_lanes_change_owners(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    signals = [SignalRecorder(), SignalRecorder(), SignalRecorder()]
    settings = RelaySettings(poll_interval=3_600, batch_size=5)
    first, second, third = (Relay(database, kafka_settings, settings, on_signal=each) for each in signals)
    await put_events(database, topic, KEYS, count=100)
    async with running(first):
        await signals[0].wait_for(RelaySignal.BATCH_MARKED)
        async with running(second, third):
            await put_events(database, topic, KEYS, first=101, count=50)
            await notify(database)
            await shared(signals, [first, second, third], [2, 3, 3])
        await wait_until_all_sent(database)

    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert first_appearances(records) == {key: list(range(1, 151)) for key in KEYS}
    assert len(records) == len(KEYS) * 150, "lanes given back in order need no duplicates"


@pytest.mark.guarantee("G21")
@pytest.mark.parametrize("delivery", ["exactly-once", "at-least-once"])
async def test_splitting_lanes_loses_reorders_and_repeats_no_event(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    delivery: Literal["exactly-once", "at-least-once"],
) -> None:
    signals = [SignalRecorder(), SignalRecorder()]
    settings = RelaySettings(poll_interval=3_600, batch_size=5, delivery=delivery)
    first, second = (Relay(database, kafka_settings, settings, on_signal=each) for each in signals)
    await put_events(database, topic, KEYS, count=50)
    async with running(first, second):
        await signals[0].wait_for(RelaySignal.BATCH_MARKED)
        async with database.connection() as connection:
            await connection.fetch("UPDATE relay_origin SET lanes_wanted = 32")
        await shared(signals, [first, second], [16, 16])
        await put_events(database, topic, KEYS, first=51, count=50)
        await notify(database)
        await wait_until_all_sent(database)

    async with database.connection() as connection:
        rows = await connection.fetch("SELECT lane, hash_min, hash_max FROM relay_lanes ORDER BY hash_min")
    assert sorted(row["lane"] for row in rows) == list(range(32))
    assert [row["hash_min"] for row in rows] == [-(2**31) + number * 2**27 for number in range(32)]
    assert rows[-1]["hash_max"] == 2**31 - 1
    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert first_appearances(records) == {key: list(range(1, 101)) for key in KEYS}
    assert len(records) == len(KEYS) * 100


@pytest.mark.guarantee("G26")
async def test_relay_that_lost_its_lane_cannot_mark_or_count_attempts(database: Database, topic: str) -> None:
    await put_events(database, topic, ["a", "b"])
    counters = Counters()
    async with database.connection() as pooled:
        # Both connections have the methods that the relay uses.
        connection: Any = pooled
        loser, winner = Lanes(lease_s=0.001), Lanes(lease_s=60)
        await loser.renew(connection)
        lanes = [Lane(lane=number, epoch=1, valid_until_s=0) for number in range(8)]
        batch = await fetch_batch(connection, lanes, rows_max=10, in_flight=())
        assert len(batch) == 2
        await winner.renew(connection)
        await winner.renew(connection)
        assert winner.owned() == tuple(range(8))

        assert await fetch_batch(connection, lanes, rows_max=10, in_flight=()) == []
        fences = {(each.lane, each.epoch) for each in batch}
        assert (
            await mark_sent(
                connection, [each.seq for each in batch], [each.row_id for each in batch], fences, counters
            )
            == 0
        )
        await charge_rows(connection, [charge_for(each, TopicUnknown("no")) for each in batch])

    assert [(row["status"], row["attempts"]) for row in await rows_of(database)] == [("PENDING", 0)] * 2
    assert counters.published_total == 0


async def test_rows_in_flight_are_not_fetched_twice(database: Database, topic: str) -> None:
    await put_events(database, topic, KEYS, count=2)
    async with database.connection() as pooled:
        connection: Any = pooled
        lanes = Lanes(lease_s=60)
        await lanes.renew(connection)
        first = await fetch_batch(connection, lanes.usable(), rows_max=30, in_flight=())
        in_flight = [each.seq for each in first]
        second = await fetch_batch(connection, lanes.usable(), rows_max=100, in_flight=in_flight)
    seqs = [row["seq"] for row in await rows_of(database)]
    assert [each.seq for each in first + second] == seqs


@pytest.mark.guarantee("G21")
async def test_lane_with_unmarked_rows_is_not_released(database: Database) -> None:
    async with database.connection() as pooled:
        connection: Any = pooled
        first, second = Lanes(lease_s=60), Lanes(lease_s=60)
        await first.renew(connection)
        await second.renew(connection)
        first.set_busy(frozenset({7}))
        await first.renew(connection)
        assert first.owned() == (0, 1, 2, 3, 7)
        assert [lane.lane for lane in first.usable()] == [0, 1, 2, 3], "nothing new is taken from it"

        assert not first.has_idle_surplus()
        first.set_busy(frozenset())
        assert first.has_idle_surplus()
        await first.renew(connection)
        await second.renew(connection)
    assert (first.owned(), second.owned()) == ((0, 1, 2, 3), (4, 5, 6, 7))


@pytest.mark.guarantee("G21")
async def test_lane_is_busy_until_its_rows_are_marked(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    busy: list[frozenset[int]] = []
    settings = RelaySettings(poll_interval=3_600, delivery="at-least-once")
    relay = Relay(database, kafka_settings, settings, on_signal=lambda moment: note(moment))

    def note(moment: RelaySignal) -> None:
        if moment in {RelaySignal.BATCH_PUBLISHED, RelaySignal.BATCH_MARKED}:
            busy.append(relay._session._lanes.busy)

    await put_events(database, topic, KEYS)
    async with running(relay):
        await wait_until_all_sent(database)
    assert busy == [frozenset(range(8))] * 2
    assert relay._session._lanes.busy == frozenset()
