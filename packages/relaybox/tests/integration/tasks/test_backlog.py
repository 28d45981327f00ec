"""The measured age of the oldest PENDING task counts from the time at which a runner could claim it."""

import asyncio
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from relaybox.db import Database
from relaybox.tasks import Progress, Task, complete_task, suspend_task, wake_tasks
from relaybox.tasks._statistics import TaskBacklog
from relaybox.tasks._store import claim_tasks, measure_backlog, release_task

from tests.fixtures.task_rows import TASK_TYPE, add_task
from tests.fixtures.waiting import eventually

_HOUR_S = 3_600
_INSERT = """
    INSERT INTO async_tasks (task_type, created_at, updated_at, fairness_key, claim_order_at)
    SELECT $1, now() - interval '2 h', now() - interval '2 h', 'ann', now() + make_interval(secs => $2)
"""


async def measured(database: Database) -> TaskBacklog:
    async with database.connection() as connection:
        return await measure_backlog(connection, [TASK_TYPE])


async def suspend_old_task(database: Database) -> UUID:
    """Suspend a task for an hour that was created three days ago."""
    task_id = await add_task(database)
    async with database.connection() as connection:
        [task] = await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60)
        await suspend_task(connection, task.fence, not_before=datetime.now(UTC) + timedelta(hours=1))
        await connection.execute(
            "UPDATE async_tasks SET created_at = now() - interval '3 d',"
            " claim_order_at = now() - interval '3 d' WHERE id = $1",
            task_id,
        )
    return task_id


async def test_woken_task_is_as_old_as_its_wake(
    database: Database, start_runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.tasks._runner._BACKLOG_S", 0.05)
    suspended = await suspend_old_task(database)
    started, finish = asyncio.Event(), asyncio.Event()

    async def worker(task: Task, progress: Progress) -> None:
        started.set()
        await finish.wait()
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    async with start_runner(worker, concurrency=1, lease_s=600) as running:
        await add_task(database)
        await started.wait()
        async with database.connection() as connection:
            await wake_tasks(connection, [suspended])

        async def backlog() -> TaskBacklog | None:
            now = running.runner.statistics().backlog
            return now if now.pending else None

        assert (await eventually("the woken task is measured", backlog)).oldest_pending_s < _HOUR_S
        finish.set()


async def test_released_task_is_as_old_as_its_release(database: Database) -> None:
    task_id = await suspend_old_task(database)
    async with database.connection() as connection:
        await wake_tasks(connection, [task_id])
        [task] = await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60)
        assert await release_task(connection, task.fence)
    assert (await measured(database)).oldest_pending_s < _HOUR_S


async def test_wake_of_a_task_that_waits_for_no_time_keeps_its_age(database: Database) -> None:
    """Otherwise repeated wakes would hide that no runner claims the task."""
    async with database.connection() as connection:
        await connection.execute(_INSERT, TASK_TYPE, 0)
        [row] = await connection.fetch("SELECT id FROM async_tasks")
        assert await wake_tasks(connection, [row["id"]]) == frozenset()
    assert (await measured(database)).oldest_pending_s >= 2 * _HOUR_S


@pytest.mark.parametrize("order_s", [-_HOUR_S, _HOUR_S])
async def test_delay_of_a_fairness_key_makes_no_task_younger(database: Database, order_s: int) -> None:
    async with database.connection() as connection:
        await connection.execute(_INSERT, TASK_TYPE, order_s)
    backlog = await measured(database)
    assert backlog.pending == 1
    assert backlog.oldest_pending_s >= 2 * _HOUR_S


async def test_due_task_is_as_old_as_the_end_of_its_wait(database: Database) -> None:
    task_id = await suspend_old_task(database)
    assert (await measured(database)) == TaskBacklog()
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE async_tasks SET not_before = now() - interval '1 s' WHERE id = $1", task_id
        )
    backlog = await measured(database)
    assert backlog.pending == 1
    assert backlog.oldest_pending_s < _HOUR_S


async def test_age_is_never_negative(database: Database) -> None:
    async with database.connection() as connection, connection.transaction():
        await connection.fetch("SELECT now()")  # the time of the measurement
        await add_task(database)
        backlog = await measure_backlog(connection, [TASK_TYPE])
    assert (backlog.pending, backlog.oldest_pending_s) == (1, 0.0)
