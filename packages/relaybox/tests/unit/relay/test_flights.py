"""Batches on their way: who waits for them, and when a call to Kafka counts as hung (G26)."""

import asyncio

import pytest
from relaybox.relay._delivery import Batch, Outcome
from relaybox.relay._flights import Flights
from relaybox.relay._messages import Message

MESSAGE = Message(1, 0, 1, "t", "key", 0, b"{}", ("1", "T", None, None, None, None, None, None), "binary")
BATCH = Batch(messages=(), lanes=frozenset({0}))


async def landing(at: asyncio.Event) -> Outcome:
    await at.wait()
    return Outcome()


async def test_g26_what_has_landed_and_was_not_taken_in_does_not_hang(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("relaybox.relay._flights._HUNG_S", -1.0)
    flights, land = Flights(), asyncio.Event()
    flights.begin(BATCH, asyncio.create_task(landing(land)))
    assert flights.hung()
    land.set()
    await flights.all_landed()
    assert not flights.hung(), "PostgreSQL may be away for long before it is taken in"
    assert [flight.batch for flight in flights.landed()] == [BATCH]
    assert len(flights) == 0


async def test_a_wave_does_not_wait_for_a_late_one_again() -> None:
    flights, land = Flights(), asyncio.Event()
    late = asyncio.create_task(landing(land))
    flights.begin(Batch(messages=[MESSAGE] * 3, lanes=frozenset({0})), late)
    assert flights.late_rows() == 0
    await flights.wave_landed(0.0)
    assert flights.late_rows() == 3
    assert [flight.late for flight in flights] == [True]
    await flights.wave_landed(None)
    assert not late.done()
    land.set()
    await flights.all_landed()
