"""Which rows that were fetched ahead are stale."""

import asyncio
from uuid import UUID

import pytest
from relaybox.relay._batches import Batch, Fetches
from relaybox.relay._messages import Message
from relaybox.relay._postgres import Lane

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
async def test_lane_with_unpublished_rows_is_stale_in_rows_fetched_ahead() -> None:
    fetches = Fetches()
    fetches.start(nothing(), LANES, set())
    ahead = fetches.first()
    first, second = message(1, lane=0), message(2, lane=1)
    fetches.invalidate_not_started([first, second], [Batch(messages=[first], lanes=frozenset({0}))])
    assert ahead.stale_lanes == {1}
    fetches.invalidate_not_started([first], [Batch(messages=[first], lanes=frozenset({0}))])
    assert ahead.stale_lanes == {1}
    await fetches.cancel()


@pytest.mark.guarantee("G21")
async def test_lane_of_an_unpublished_batch_is_stale_in_all_fetches() -> None:
    fetches = Fetches()
    fetches.start(nothing(), LANES, set())
    fetches.start(nothing(), LANES, set())
    fetches.invalidate([1])
    first = fetches.first()
    fetches.remove_first()
    assert fetches.first() is not first
    assert (first.stale_lanes, fetches.first().stale_lanes) == ({1}, {1})
    fetches.invalidate_all()
    assert fetches.first().stale_lanes == {0, 1}
    await fetches.cancel()


async def test_cancelled_fetch_stops_reading() -> None:
    fetches = Fetches()
    fetches.start(never(), LANES, {"a"})
    reading = fetches.first().reading
    await fetches.cancel()
    assert reading.cancelled()
    assert not fetches
