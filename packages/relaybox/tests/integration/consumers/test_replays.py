"""Replays of many dead letters."""

import hashlib

import pytest
from relaybox.consumers import ConsumerSignal
from relaybox.db import Database

from tests.fixtures.events import effects, record_effect
from tests.fixtures.letters import letter_rows, park_letters


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
