"""Batches in flight, and the lanes that wait for them."""

import asyncio
from uuid import UUID

from relaybox.relay._delivery import Batch, Outcome
from relaybox.relay._flights import Flights
from relaybox.relay._messages import Message

MESSAGE = Message(
    1, 0, 1, "t", "key", 0, b"{}", ("1", "T", None, None, None, None, None, None), "binary", UUID(int=1)
)


async def landing(at: asyncio.Event) -> Outcome:
    await at.wait()
    return Outcome()


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
