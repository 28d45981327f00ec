"""Tasks are claimed in the order in which they became due: new, woken and suspended ones alike."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import UUID

import pytest
from relaybox.db import Database
from relaybox.tasks import Progress, Task, complete_task, suspend_task
from relaybox.tasks._store import claim_tasks

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.task_rows import TASK_TYPE, add_task

TIMERS = 3
_CLAIMS_MAX = 50
AddTask = Callable[[Database], Awaitable[UUID]]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


async def add_timer(database: Database) -> UUID:
    """Add a suspended task whose time has come."""
    task_id = await add_task(database)
    async with database.connection() as connection:
        await connection.execute("UPDATE async_tasks SET not_before = now() WHERE id = $1", task_id)
    return task_id


@pytest.mark.parametrize("early", [False, True])
async def test_timers_that_are_always_due_do_not_delay_a_ready_task(
    database: Database, start_runner, early: bool
) -> None:
    for _ in range(TIMERS):
        await add_timer(database)
    ready = await add_task(database)
    claims = 0
    ready_ran, given_up = asyncio.Event(), asyncio.Event()

    async def worker(task: Task, progress: Progress) -> None:
        nonlocal claims
        claims += 1
        if claims > _CLAIMS_MAX:
            given_up.set()
        async with database.connection() as connection:
            if task.id == ready:
                await complete_task(connection, task.fence, result={})
                ready_ran.set()
            else:
                not_before = EPOCH if early else datetime.now(UTC)
                await suspend_task(connection, task.fence, not_before=not_before)

    async with start_runner(worker, concurrency=1, lease_s=600):
        ended = [asyncio.create_task(event.wait()) for event in (ready_ran, given_up)]
        await asyncio.wait(ended, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
        for waiting in ended:
            waiting.cancel()
        assert not given_up.is_set()
        assert ready_ran.is_set()


async def test_ready_tasks_do_not_delay_a_timer(database: Database) -> None:
    timer = await add_timer(database)
    for _ in range(TIMERS):
        await add_task(database)
    async with database.connection() as connection:
        [task] = await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60)
    assert task.id == timer


async def test_one_claim_takes_both_kinds_in_the_order_of_their_times(database: Database) -> None:
    order: list[UUID] = []
    for _ in range(TIMERS):
        order += [await add_timer(database), await add_task(database)]
    for tasks_max in (1, 3, 10):
        async with database.connection() as connection:
            tasks = await claim_tasks(connection, [TASK_TYPE], tasks_max=tasks_max, lease_s=60)
        assert {task.id for task in tasks} == set(order[:tasks_max])
        del order[:tasks_max]


@pytest.mark.parametrize("kinds", [(add_task, add_timer), (add_timer, add_task)])
async def test_claim_takes_other_tasks_instead_of_locked_ones(
    database: Database, kinds: tuple[AddTask, AddTask]
) -> None:
    locked, free = [[await add(database) for _ in range(TIMERS)] for add in kinds]
    async with (
        database.connection() as other,
        other.transaction(),
        database.connection() as connection,
    ):
        await other.fetch("SELECT id FROM async_tasks WHERE id = ANY($1) FOR UPDATE", locked)
        tasks = await claim_tasks(connection, [TASK_TYPE], tasks_max=TIMERS, lease_s=60)
        assert {task.id for task in tasks} == set(free)
