"""Queries of the relay on the outbox."""

import asyncio

import pytest
from relaybox.db import Database
from relaybox.relay import Relay
from relaybox.relay._postgres import connected, seconds_until_due
from relaybox.settings import KafkaSettings, RelaySettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.relays import first_appearances, put_events, read_topic, rows_of, running


@pytest.mark.guarantee("G24")
async def test_row_that_became_due_after_the_last_fetch_is_fetched_at_once(database: Database) -> None:
    await put_events(database, "domain-events", ["key"])
    async with connected(database) as connection:
        assert await seconds_until_due(connection, fetched_s=60) is None
        await connection.fetch("UPDATE event_outbox SET next_attempt_at = now() - interval '10 s'")
        assert await seconds_until_due(connection, fetched_s=1) is None
        late_s = await seconds_until_due(connection, fetched_s=60)
        assert late_s is not None
        assert late_s <= -10
        await connection.fetch("UPDATE event_outbox SET next_attempt_at = now() + interval '60 s'")
        due_s = await seconds_until_due(connection, fetched_s=1)
        assert due_s is not None
        assert 0 < due_s <= 60


@pytest.mark.guarantee("G29")
async def test_relays_remove_old_sent_rows_and_lose_no_row(
    database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    # Rows are old after 0.4 s: slots are closed, sealed and emptied while rows are fetched and marked.
    settings = RelaySettings(poll_interval=0.1, retention_h=1e-4, delivery="at-least-once")
    keys = [f"key-{number}" for number in range(20)]
    async with running(*(Relay(database, kafka_settings, settings) for _ in range(2))):
        for first in range(1, 101, 10):
            await put_events(database, topic, keys, first=first, count=10)
        async with asyncio.timeout(WAIT_S):
            while await rows_of(database):  # noqa: ASYNC110 - PostgreSQL sends no signal
                await asyncio.sleep(0.05)
    assert first_appearances(read_topic(kafka_settings.bootstrap_servers, topic)) == {
        key: list(range(1, 101)) for key in keys
    }
