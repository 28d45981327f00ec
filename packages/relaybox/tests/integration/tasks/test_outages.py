"""A task runner while PostgreSQL is unreachable or does not respond."""

import asyncio

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.local import LocalPostgres
from relaybox.tasks import Progress, Task, TaskSignal, Worker, complete_task

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.outages import frozen, read_only, stopped
from tests.fixtures.task_rows import add_task, task_row

_STOP_S = 10.0


async def test_worker_survives_database_outage_and_its_result_counts(
    database: Database, postgres_server: LocalPostgres, start_runner
) -> None:
    task_id = await add_task(database)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def worker(task: Task, progress: Progress) -> None:
        started.set()
        await go_on.wait()
        await progress(50)
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    # A lease that ends during the outage would let another runner claim the task.
    async with start_runner(worker, lease_s=WAIT_S) as running:
        await asyncio.wait_for(started.wait(), WAIT_S)
        async with stopped(postgres_server):
            await running.signals.wait_for_next(TaskSignal.WAITING_FOR_DATABASE)
        go_on.set()
        await running.signals.wait_for(TaskSignal.ENDED)
    row = await task_row(database, task_id)
    assert (row["status"], row["attempts"]) == ("COMPLETED", 1)


async def test_failed_progress_report_does_not_end_the_worker(
    database: Database, postgres_server: LocalPostgres, start_runner
) -> None:
    await add_task(database)
    done = asyncio.Event()

    async def worker(task: Task, progress: Progress) -> None:
        async with stopped(postgres_server):
            await progress(50)
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})
        done.set()

    async with start_runner(worker, lease_s=3600) as running:
        await asyncio.wait_for(done.wait(), WAIT_S)
        await running.signals.wait_for(TaskSignal.ENDED)


async def test_frozen_postgresql_does_not_delay_a_stop(
    database: Database, postgres_server: LocalPostgres, start_runner
) -> None:
    await add_task(database)
    started = asyncio.Event()

    async def worker(task: Task, progress: Progress) -> None:
        started.set()
        await asyncio.Event().wait()

    async with start_runner(worker, lease_s=0.4) as running:
        await asyncio.wait_for(started.wait(), WAIT_S)
        with frozen(postgres_server):
            running.runner.stop()
            await asyncio.wait_for(running.ended(), _STOP_S)


@pytest.mark.guarantee("G35")
async def test_runner_waits_while_postgresql_is_read_only(
    database: Database, postgres_server: LocalPostgres, start_runner
) -> None:
    async with start_runner(_complete(database)) as running:
        await running.signals.wait_for(TaskSignal.IDLE)
        async with read_only(postgres_server):
            await running.signals.wait_for_next(TaskSignal.WAITING_FOR_DATABASE)
        await add_task(database)
        await running.signals.wait_for(TaskSignal.ENDED)


async def test_runner_survives_a_rejected_statement(
    database: Database, superuser: asyncpg.Connection, start_runner
) -> None:
    async with start_runner(_complete(database)) as running:
        await running.signals.wait_for(TaskSignal.IDLE)
        await superuser.execute("REVOKE UPDATE ON async_tasks FROM relaybox")
        await running.signals.wait_for_next(TaskSignal.WAITING_FOR_DATABASE)
        await superuser.execute("GRANT UPDATE ON async_tasks TO relaybox")
        await add_task(database)
        await running.signals.wait_for(TaskSignal.ENDED)


def _complete(database: Database) -> Worker:
    async def worker(task: Task, _progress: Progress) -> None:
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    return worker
