"""Who may take off of what was read ahead."""

import asyncio
from uuid import UUID

import pytest
from relaybox.relay._delivery import Batch
from relaybox.relay._fetches import Fetches
from relaybox.relay._lanes import Lane
from relaybox.relay._messages import Message

LANES = [Lane(lane=number, epoch=1, valid_until_s=0.0) for number in (0, 1)]
ATTRIBUTES = ("1", "T", None, None, None, None, None, None)


def message(seq: int, lane: int) -> Message:
    return Message(seq, lane, 1, "t", "a", 0, b"{}", ATTRIBUTES, "binary", UUID(int=seq))


async def nothing() -> list[Message]:
    return []


async def never() -> list[Message]:
    await asyncio.Event().wait()
    return []


@pytest.mark.guarantee("G21")
async def test_lanes_of_rows_that_stay_behind_are_barred_to_what_was_read_ahead() -> None:
    fetches = Fetches()
    fetches.begin(nothing(), LANES, set())
    ahead = fetches.first()
    first, second = message(1, lane=0), message(2, lane=1)
    fetches.bar_left_behind([first, second], [Batch(messages=[first], lanes=frozenset({0}))])
    assert ahead.barred == {1}
    fetches.bar_left_behind([first], [Batch(messages=[first], lanes=frozenset({0}))])
    assert ahead.barred == {1}
    await fetches.drop()


@pytest.mark.guarantee("G21")
async def test_a_lane_whose_batch_was_not_published_is_barred_to_all_that_is_being_read() -> None:
    fetches = Fetches()
    fetches.begin(nothing(), LANES, set())
    fetches.begin(nothing(), LANES, set())
    fetches.bar([1])
    barred = fetches.first().barred
    fetches.done()
    assert (barred, fetches.first().barred) == ({1}, {1})
    fetches.bar_all()
    assert fetches.first().barred == {0, 1}
    await fetches.drop()


async def test_what_is_dropped_is_read_no_further() -> None:
    fetches = Fetches()
    fetches.begin(never(), LANES, {"a"})
    reading = fetches.first().reading
    await fetches.drop()
    assert reading.cancelled()
    assert not fetches
