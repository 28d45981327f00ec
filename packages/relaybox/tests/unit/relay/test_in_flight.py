"""Batches in flight, and for how long other lanes wait for them."""

import asyncio
from uuid import UUID

from relaybox.relay._batches import Batch, InFlightBatches, Outcome
from relaybox.relay._messages import Message

MESSAGE = Message(
    1, 0, 1, "t", "key", 0, b"{}", ("1", "T", None, None, None, None, None, None), "binary", UUID(int=1)
)


async def outcome_at(finished: asyncio.Event) -> Outcome:
    await finished.wait()
    return Outcome()


async def test_late_batch_is_not_waited_for_again() -> None:
    in_flight, finish = InFlightBatches(), asyncio.Event()
    late = asyncio.create_task(outcome_at(finish))
    in_flight.add(Batch(messages=[MESSAGE] * 3, lanes=frozenset({0})), late)
    assert [each.late for each in in_flight] == [False]
    await in_flight.wait_for_prompt(0.0)
    assert [each.late for each in in_flight] == [True]
    await in_flight.wait_for_prompt(None)
    assert not late.done()
    finish.set()
    await in_flight.wait_for_all()


async def test_finished_batches_are_taken_once_and_never_late() -> None:
    in_flight, finish = InFlightBatches(), asyncio.Event()
    for lane in (0, 1):
        outcome = asyncio.create_task(outcome_at(finish))
        in_flight.add(Batch(messages=[MESSAGE], lanes=frozenset({lane})), outcome)
    assert (in_flight.take_finished(), in_flight.lanes()) == ([], {0, 1})
    finish.set()
    await in_flight.wait_for_prompt(None)
    assert [each.late for each in in_flight] == [False, False]
    assert [each.batch.lanes for each in in_flight.take_finished()] == [{0}, {1}]
    assert (in_flight.take_finished(), in_flight.messages()) == ([], [])
