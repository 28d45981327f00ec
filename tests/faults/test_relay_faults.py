"""Relays killed and frozen, servers stopped: no event is lost, keys stay in order."""

import asyncio
import gc
import signal

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.local import LocalKafka, LocalPostgres
from relaybox.relay import Relay, RelaySignal
from relaybox.settings import KafkaSettings, RelaySettings

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
COUNT = 60
EXPECTED = {key: list(range(1, COUNT + 1)) for key in KEYS}
NO_POLL = RelaySettings(poll_interval=3_600)


@pytest.mark.guarantee("G20")
@pytest.mark.parametrize("moment", ["batch_taken:3", "batch_published:3", "batch_marked:2"])
async def test_relay_killed_mid_batch_loses_and_reorders_nothing(
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
    expected = {key: list(range(1, count + 1)) for key in KEYS}
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == expected


@pytest.mark.guarantee("G21")
async def test_three_relays_with_two_killed_reorder_nothing(
    database: Database, kafka_settings: KafkaSettings, topic: str, make_relay: StartRelay
) -> None:
    await put_events(database, topic, KEYS, count=COUNT // 2)
    victims = [make_relay(die_at="batch_published:4"), make_relay(die_at="batch_published:2")]
    await asyncio.gather(*(victim.start() for victim in victims), make_relay().start())
    await put_events(database, topic, KEYS, first=COUNT // 2 + 1, count=COUNT // 2)
    await notify(database)
    await wait_until_all_sent(database)
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == EXPECTED


@pytest.mark.guarantee("G26")
async def test_lanes_of_a_killed_relay_are_taken_over_within_5_s(
    database: Database, topic: str, make_relay: StartRelay
) -> None:
    victim, heir = make_relay(), make_relay()
    await victim.start()
    await heir.start()
    victim.send(signal.SIGKILL)
    await victim.wait_for_exit()
    await put_events(database, topic, KEYS)
    await notify(database)
    await asyncio.wait_for(wait_until_all_sent(database), 5)


@pytest.mark.guarantee("G26")
async def test_relay_frozen_after_acknowledgement_cannot_mark_when_resumed(
    database: Database, kafka_settings: KafkaSettings, topic: str, make_relay: StartRelay
) -> None:
    await put_events(database, topic, KEYS, count=COUNT)
    frozen = make_relay(freeze_at="batch_published:2")
    await frozen.start()
    await frozen.wait_until_frozen()
    await make_relay().start()
    await wait_until_all_sent(database)
    before = await rows_of(database)

    await put_events(database, topic, KEYS, first=COUNT + 1)
    frozen.send(signal.SIGCONT)
    await frozen.wait_for(RelaySignal.LANES_CHANGED)
    await notify(database)
    await wait_until_all_sent(database)
    assert (await rows_of(database))[: len(before)] == before, "the woken relay wrote over marks"
    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert first_appearances(records) == {key: list(range(1, COUNT + 2)) for key in KEYS}


@pytest.mark.guarantee("G27")
async def test_sigterm_settles_in_flight_batches_and_releases_lanes(
    database: Database, kafka_settings: KafkaSettings, topic: str, make_relay: StartRelay
) -> None:
    await put_events(database, topic, KEYS, count=COUNT)
    relay = make_relay()
    await relay.start()
    await relay.wait_for(RelaySignal.BATCH_MARKED)
    relay.send(signal.SIGTERM)
    assert await asyncio.wait_for(relay.wait_for_exit(), 10) == 0

    async with database.connection() as connection:
        assert await connection.fetch("SELECT FROM relay_lanes WHERE owner IS NOT NULL") == []
        assert await connection.fetch("SELECT FROM relay_members") == []
    published = read_topic(kafka_settings.bootstrap_servers, topic)
    sent = await rows_of(database, "status = 'SENT'")
    assert len(published) == len(sent), "an acknowledged row was left unmarked"


@pytest.mark.guarantee("G27")
async def test_sigterm_ends_a_relay_without_servers_within_10_s(
    database: Database, topic: str, make_relay: StartRelay, kafka_server: LocalKafka
) -> None:
    relay = make_relay()
    await relay.start()
    await relay.wait_for(RelaySignal.IDLE)
    kafka_server.pause()
    try:
        await put_events(database, topic, KEYS)
        await notify(database)
        await relay.wait_for(RelaySignal.BATCH_TAKEN)
        relay.send(signal.SIGTERM)
        assert await asyncio.wait_for(relay.wait_for_exit(), 10) == 0
    finally:
        kafka_server.resume()
    assert {row["status"] for row in await rows_of(database)} == {"PENDING"}


@pytest.mark.guarantee("G23")
async def test_row_is_marked_only_after_the_broker_acknowledged_it(
    database: Database, kafka_settings: KafkaSettings, kafka_server: LocalKafka, topic: str
) -> None:
    signals = SignalRecorder()
    async with running(Relay(database, kafka_settings, NO_POLL, on_signal=signals)):
        await put_events(database, topic, KEYS)
        await notify(database)
        await wait_until_all_sent(database)
        down = signals.wait_for_next(RelaySignal.LINK_DOWN)
        kafka_server.pause()
        try:
            await put_events(database, topic, KEYS, first=2)
            await notify(database)
            await down
            late = await rows_of(database, "payload ->> 'version' = '2'")
            assert {row["status"] for row in late} == {"PENDING"}
        finally:
            kafka_server.resume()
        await wait_until_all_sent(database)

    records = read_topic(kafka_settings.bootstrap_servers, topic)
    assert first_appearances(records) == {key: [1, 2] for key in KEYS}


@pytest.mark.guarantee("G20")
async def test_broker_killed_under_load_loses_reorders_and_charges_nothing(
    database: Database, kafka_settings: KafkaSettings, kafka_server: LocalKafka, topic: str
) -> None:
    signals = SignalRecorder()
    settings = RelaySettings(poll_interval=3_600, batch_size=5)
    await put_events(database, topic, KEYS, count=COUNT)
    relay = Relay(database, kafka_settings, settings, on_signal=signals)
    async with running(relay):
        await signals.wait_for(RelaySignal.BATCH_PUBLISHED, 3)  # not marked: one mark may have all rows
        down, up = signals.wait_for_next(RelaySignal.LINK_DOWN), signals.wait_for_next(RelaySignal.LINK_UP)
        kafka_server.kill()
        try:
            await down
            assert not relay.statistics().link_up
        finally:
            await kafka_server.start()
        await up
        await wait_until_all_sent(database)

    assert {row["attempts"] for row in await rows_of(database)} == {0}
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == EXPECTED


# The driver does not close the socket of a connection that is cut in its handshake.
@pytest.mark.guarantee("G20")
@pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <socket\.socket:pytest.PytestUnraisableExceptionWarning"
)
async def test_connections_cut_by_postgresql_lose_and_reorder_nothing(
    database: Database,
    postgres_server: LocalPostgres,
    kafka_settings: KafkaSettings,
    topic: str,
) -> None:
    signals = SignalRecorder()
    settings = RelaySettings(poll_interval=3_600, batch_size=5)
    await put_events(database, topic, KEYS, count=COUNT)
    async with running(Relay(database, kafka_settings, settings, on_signal=signals)):
        for cut in range(1, 6):
            await signals.wait_for(RelaySignal.BATCH_PUBLISHED, 2 * cut)
            await cut_connections(postgres_server, database)
        await wait_until_all_sent(database)

    # Collected here, so that the warning concerns no other test.
    gc.collect()
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == EXPECTED


async def cut_connections(server: LocalPostgres, database: Database) -> None:
    """End every connection to the test's database but this one."""
    connection = await asyncpg.connect(
        host=server.host,
        port=server.port,
        user=server.superuser,
        password=server.superuser_password,
        database=database.settings.db,
    )
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()
