"""Commands of one batch: none fails, waits for ever or is written twice because of another one."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.commands import (
    AggregateNotFound,
    CommandService,
    ConstraintViolated,
    PayloadInvalid,
    _batcher,
)
from relaybox.db import DatabaseBusy
from relaybox.outbox import MessageTooLarge

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.counters import TooMuch, counters, request, submit

NEIGHBOURS = 8


async def counters_of(service: CommandService, count: int) -> list[UUID]:
    made = await asyncio.gather(*(submit(service, "CreateCounter") for _ in range(count)))
    return [one.aggregate_id for one in made]


async def together(service: CommandService, requests: Sequence[tuple[UUID, dict[str, Any]]]) -> list[Any]:
    """Submit all commands before the first is written, so that one statement contains them."""
    return await asyncio.gather(
        *(submit(service, "Increase", one, **payload) for one, payload in requests), return_exceptions=True
    )


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        ({"by": 0}, PayloadInvalid),
        ({"by": 1_000}, TooMuch),
        ({"extra": "\x00"}, PayloadInvalid),
        ({"extra": float("nan")}, PayloadInvalid),
        ({"note_bytes": 2_000_000}, MessageTooLarge),
        ({"steps": 0}, AssertionError),
        ({"by": 13}, ConstraintViolated),
    ],
    ids=["schema", "rules", "nul", "no JSON number", "too large", "broken decider", "constraint"],
)
async def test_commands_beside_a_failing_one_are_written_once(
    service: CommandService, superuser: asyncpg.Connection, written, bad: dict[str, Any], error
) -> None:
    await superuser.execute("ALTER TABLE aggregate_snapshots ADD CHECK (state ->> 'total' <> '13')")
    ids = await counters_of(service, NEIGHBOURS)
    requests = [(one, bad if place == 3 else {"by": 2}) for place, one in enumerate(ids)]

    answers = await together(service, requests)

    assert isinstance(answers[3], error)
    for place, one in enumerate(ids):
        look = await written(one)
        assert (look.version, look.commands) == ((1, 1) if place == 3 else (2, 2))
        assert place == 3 or answers[place].version == 2


async def test_batch_with_a_locked_aggregate_writes_the_others_once(
    make_service, service: CommandService, superuser: asyncpg.Connection, written
) -> None:
    ids = await counters_of(service, NEIGHBOURS)
    impatient = make_service(lock_timeout_ms=100)
    async with superuser.transaction():
        await superuser.execute("SELECT FROM aggregate_snapshots WHERE id = $1 FOR UPDATE", ids[3])
        answers = await together(impatient, [(one, {}) for one in ids])

    assert isinstance(answers[3], DatabaseBusy)
    assert [(await written(one)).version for one in ids] == [2, 2, 2, 1, 2, 2, 2, 2]


async def test_commands_written_before_a_failure_are_not_written_again(
    service: CommandService, superuser: asyncpg.Connection, written
) -> None:
    ids = await counters_of(service, 3)
    await superuser.execute("ALTER TABLE aggregate_snapshots ADD CHECK (state ->> 'total' <> '13')")
    news = [request("CreateCounter", start=start) for start in (1, 13, 2)]

    answers = await asyncio.gather(
        *(submit(service, "Increase", one) for one in ids),
        *(service.submit(one, domain=counters) for one in news),
        return_exceptions=True,
    )

    assert isinstance(answers[4], ConstraintViolated)
    assert [(await written(one)).commands for one in ids] == [2, 2, 2]
    assert [(await written(one.aggregate_id)).version for one in (news[0], news[2])] == [1, 1]


async def test_concurrent_commands_of_one_aggregate_keep_their_order(
    service: CommandService, counter_id: UUID, written
) -> None:
    answers = await together(service, [(counter_id, {"by": by}) for by in range(1, 31)])
    assert [answer.version for answer in answers] == list(range(2, 32))
    assert (await written(counter_id)).total == sum(range(1, 31))


async def test_commands_over_the_queue_limit_get_busy(
    service: CommandService,
) -> None:
    answers = await together(service, [(uuid4(), {}) for _ in range(2_300)])
    kinds = [type(answer) for answer in answers]
    assert kinds == [AggregateNotFound] * 2_000 + [DatabaseBusy] * 300


async def test_command_that_waited_too_long_is_busy_and_not_written(
    service: CommandService, counter_id: UUID, written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_batcher, "_WAIT_S_MAX", -1)
    with pytest.raises(DatabaseBusy, match="not written within"):
        await submit(service, "Increase", counter_id)
    assert (await written(counter_id)).version == 1


@pytest.mark.guarantee("G64")
async def test_cancelled_caller_leaves_a_complete_command(
    service: CommandService, counter_id: UUID, superuser: asyncpg.Connection, until_blocked, written
) -> None:
    async with superuser.transaction():
        await superuser.execute("SELECT FROM aggregate_snapshots FOR UPDATE")
        in_flight = asyncio.create_task(submit(service, "Increase", counter_id))
        await until_blocked()
        waiting = asyncio.create_task(submit(service, "Increase", counter_id, by=50))
        await asyncio.sleep(0)
        in_flight.cancel()
        waiting.cancel()
        await asyncio.wait([in_flight, waiting])
    await service.close()

    assert in_flight.cancelled()
    assert waiting.cancelled()
    look = await written(counter_id)
    assert (look.version, look.commands, look.total) == (2, 2, 1)


async def test_close_waits_for_commands_in_flight(
    service: CommandService, counter_id: UUID, superuser: asyncpg.Connection, until_blocked, written
) -> None:
    async with superuser.transaction():
        await superuser.execute("SELECT FROM aggregate_snapshots FOR UPDATE")
        command = asyncio.create_task(submit(service, "Increase", counter_id))
        await until_blocked()
        closing = asyncio.create_task(service.close())
        await asyncio.sleep(0)
        assert not closing.done()
    await closing

    assert command.done()
    assert (await written(counter_id)).version == 2


async def test_command_sent_from_a_result_callback_is_executed(
    service: CommandService, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With one worker the result always arrives while the worker ends.
    monkeypatch.setattr(_batcher, "_WORKERS_MAX", 1)
    (one,) = await counters_of(service, 1)
    async with asyncio.timeout(WAIT_S):
        for _ in range(10):
            last = await submit(service, "Increase", one)
    assert last.version == 11
