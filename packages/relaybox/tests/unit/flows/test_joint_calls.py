"""Calls that arrive while a statement runs share the next one."""

import asyncio
from collections.abc import Sequence

import pytest
from relaybox.db import DatabaseUnavailable
from relaybox.flows._joint import JointCalls


class Statement:
    """Doubles its arguments; fails for negative ones."""

    def __init__(self, failure: Exception) -> None:
        self.batches: list[list[int]] = []
        self._failure = failure

    async def __call__(self, arguments: Sequence[int]) -> list[int]:
        self.batches.append(list(arguments))
        await asyncio.sleep(0)
        if min(arguments) < 0:
            raise self._failure
        return [2 * one for one in arguments]


async def test_concurrent_calls_share_a_statement() -> None:
    statement = Statement(ValueError())
    joint = JointCalls(statement)
    assert await asyncio.gather(*(joint.call(one) for one in range(60))) == [2 * one for one in range(60)]
    assert [len(batch) for batch in statement.batches] == [50, 10]
    assert await joint.call(7) == 14


async def test_call_that_fails_does_not_fail_the_others() -> None:
    statement = Statement(ValueError())
    joint = JointCalls(statement)
    results = await asyncio.gather(*map(joint.call, (1, -1, 2)), return_exceptions=True)
    assert results[::2] == [2, 4]
    assert isinstance(results[1], ValueError)
    assert statement.batches == [[1, -1, 2], [1], [-1], [2]]


async def test_unavailable_database_fails_all_calls_at_once() -> None:
    statement = Statement(DatabaseUnavailable())
    joint = JointCalls(statement)
    results = await asyncio.gather(*map(joint.call, (1, -1)), return_exceptions=True)
    assert [type(one) for one in results] == [DatabaseUnavailable] * 2
    assert statement.batches == [[1, -1]]


async def test_cancelled_call_leaves_the_others() -> None:
    joint = JointCalls(Statement(ValueError()))
    calls = [asyncio.create_task(joint.call(one)) for one in (1, 2)]
    await asyncio.sleep(0)
    calls[0].cancel()
    assert await calls[1] == 4
    with pytest.raises(asyncio.CancelledError):
        await calls[0]
