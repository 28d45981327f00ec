"""The statistics of a task runner at work."""

import asyncio

import pytest
from relaybox.db import Database
from relaybox.tasks import Progress, Task, TaskSignal, complete_task

from tests.fixtures.task_rows import add_task, expire_lease
from tests.fixtures.waiting import eventually


async def test_statistics_measure_open_tasks_and_attempts(
    database: Database, start_runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.tasks._runner._BACKLOG_S", 0.05)
    started, finish = asyncio.Event(), asyncio.Event()

    async def worker(task: Task, progress: Progress) -> None:
        started.set()
        await finish.wait()
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    async with start_runner(worker, concurrency=1, lease_s=600) as running:
        first = await add_task(database)
        await started.wait()
        await add_task(database)

        async def one_of_each() -> bool:
            now = running.runner.statistics().backlog
            return (now.pending, now.running, now.expired) == (1, 1, 0) and now.oldest_pending_s > 0

        async def one_expired() -> bool:
            now = running.runner.statistics().backlog
            return (now.pending, now.running, now.expired) == (1, 0, 1)

        async def none_open() -> bool:
            now = running.runner.statistics().backlog
            return (now.pending, now.running, now.expired, now.oldest_pending_s) == (0, 0, 0, 0.0)

        await eventually("a pending and a running task are measured", one_of_each)
        await expire_lease(database, first)
        await eventually("the expired lease is measured", one_expired)
        finish.set()
        await running.signals.wait_for(TaskSignal.ENDED, 2)
        await eventually("no task is open", none_open)
        assert sum(running.runner.statistics().attempt_counts) == 2
        assert running.runner.statistics().attempt_sum_s > 0
