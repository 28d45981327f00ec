"""Batches in flight, and the lanes that wait for them."""

import asyncio
from uuid import UUID

from relaybox.relay._batches import Batch, InFlightBatches, Outcome
from relaybox.relay._messages import Message

MESSAGE = Message(
    1, 0, 1, "t", "key", 0, b"{}", ("1", "T", None, None, None, None, None, None), "binary", UUID(int=1)
)


async def landing(at: asyncio.Event) -> Outcome:
    await at.wait()
    return Outcome()


async def test_a_wave_does_not_wait_for_a_late_one_again() -> None:
    in_flight, land = InFlightBatches(), asyncio.Event()
    late = asyncio.create_task(landing(land))
    in_flight.add(Batch(messages=[MESSAGE] * 3, lanes=frozenset({0})), late)
    assert in_flight.late_rows() == 0
    await in_flight.wait_for_prompt(0.0)
    assert in_flight.late_rows() == 3
    assert [each.late for each in in_flight] == [True]
    await in_flight.wait_for_prompt(None)
    assert not late.done()
    land.set()
    await in_flight.wait_for_all()
