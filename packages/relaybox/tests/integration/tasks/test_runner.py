"""The task runner: claims, leases, takeover, cancellation, failed attempts, graceful stop."""

import asyncio
from decimal import Decimal

import pytest
from relaybox.db import Database
from relaybox.outbox import Notifier
from relaybox.tasks import Progress, Task, TaskLost, TaskSignal, announce_tasks, complete_task
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.task_rows import TASK_TYPE, add_task, cancel, expire_lease, fail, task_row


class Held:
    """A worker that waits until the test releases it, and then completes its task."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.started: asyncio.Queue[Task] = asyncio.Queue()
        self.go_on = asyncio.Event()
        self.refused: list[TaskLost] = []

    async def __call__(self, task: Task, progress: Progress) -> None:
        self.started.put_nowait(task)
        await self.go_on.wait()
        try:
            async with self._database.connection() as connection:
                await complete_task(connection, task.fence, result={"attempt": task.attempts})
        except TaskLost as lost:
            self.refused.append(lost)
            raise

    async def has_started(self) -> Task:
        return await asyncio.wait_for(self.started.get(), WAIT_S)


@pytest.fixture
def held(database: Database) -> Held:
    return Held(database)


async def test_wake_starts_a_task_before_the_next_poll(database: Database, held: Held, start_runner) -> None:
    held.go_on.set()
    async with start_runner(held, poll_s=60) as running:
        await running.signals.wait_for(TaskSignal.IDLE)
        task_id = await add_task(database)
        running.runner.wake()
        await running.signals.wait_for(TaskSignal.ENDED)
    assert (await task_row(database, task_id))["status"] == "COMPLETED"


async def test_listening_runner_starts_an_announced_task_before_the_next_poll(
    database: Database, held: Held, start_runner
) -> None:
    held.go_on.set()
    notifier = Notifier(database)
    notifier.attach(database.sessions)
    await notifier.start()
    async with start_runner(held, listens=True, poll_s=60) as running:
        await running.signals.wait_for(TaskSignal.IDLE, 2)  # at its start, and when it listens
        task_id = await add_task(database)
        await database.run_in_transaction(announce)
        await running.signals.wait_for(TaskSignal.ENDED)
    await notifier.stop()
    assert (await task_row(database, task_id))["status"] == "COMPLETED"


async def announce(db: AsyncSession) -> None:
    announce_tasks(db, [TASK_TYPE])
    await db.execute(text("SELECT 1"))


async def test_polling_finds_a_task_without_wake(database: Database, held: Held, start_runner) -> None:
    held.go_on.set()
    async with start_runner(held) as running:
        await running.signals.wait_for(TaskSignal.IDLE)
        task_id = await add_task(database)
        await running.signals.wait_for(TaskSignal.ENDED)
    assert (await task_row(database, task_id))["status"] == "COMPLETED"


async def test_runner_works_on_at_most_its_concurrency_of_tasks(
    database: Database, held: Held, start_runner
) -> None:
    for _ in range(5):
        await add_task(database)
    async with start_runner(held, concurrency=2) as running:
        await held.has_started()
        await held.has_started()
        assert running.runner.statistics().running == 2
        assert repr(running.runner) == "<TaskRunner compose_proposal [2 of 2 running]>"
        held.go_on.set()
        await running.signals.wait_for(TaskSignal.ENDED, 5)
    assert running.runner.statistics().ended == 5


@pytest.mark.guarantee("G06")
async def test_expired_lease_moves_the_task_and_rejects_the_late_result(
    database: Database, held: Held, start_runner
) -> None:
    task_id = await add_task(database)
    successor = Held(database)
    successor.go_on.set()
    async with start_runner(held, lease_s=3600) as frozen:
        await held.has_started()
        await expire_lease(database, task_id)
        async with start_runner(successor) as other:
            await other.signals.wait_for(TaskSignal.ENDED)
        held.go_on.set()
        await frozen.signals.wait_for(TaskSignal.LOST)
    assert len(held.refused) == 1
    row = await task_row(database, task_id)
    assert (row["status"], row["attempts"], row["result_data"]) == ("COMPLETED", 2, '{"attempt": 2}')


async def test_lease_is_renewed_while_its_worker_works(database: Database, held: Held, start_runner) -> None:
    task_id = await add_task(database)
    async with start_runner(held, lease_s=0.4) as running:
        await held.has_started()
        before = (await task_row(database, task_id))["lease_until"]
        await running.signals.wait_for(TaskSignal.RENEWED, 4)
        row = await task_row(database, task_id)
        assert row["lease_until"] > before
        assert row["attempts"] == 1


@pytest.mark.guarantee("G43")
async def test_cancelled_task_cancels_its_worker_at_the_next_heartbeat(
    database: Database, held: Held, start_runner
) -> None:
    task_id = await add_task(database)
    async with start_runner(held, lease_s=0.4) as running:
        await held.has_started()
        await cancel(database, task_id)
        await running.signals.wait_for(TaskSignal.LOST)
        assert running.runner.statistics().running == 0
    assert (await task_row(database, task_id))["status"] == "CANCELLED"


@pytest.mark.guarantee("G43")
async def test_cancelled_task_stops_its_worker_at_the_next_progress(database: Database, start_runner) -> None:
    task_id = await add_task(database)
    refused = asyncio.Event()

    async def worker(task: Task, progress: Progress) -> None:
        await progress(10)
        await cancel(database, task.id)
        try:
            await progress(20)
        except TaskLost:
            refused.set()
            raise

    async with start_runner(worker, lease_s=3600) as running:
        await running.signals.wait_for(TaskSignal.LOST)
    assert refused.is_set()
    row = await task_row(database, task_id)
    assert (row["status"], row["progress"]) == ("CANCELLED", 10)


@pytest.mark.guarantee("G43")
async def test_progress_of_a_second_attempt_starts_at_that_of_the_first(
    database: Database, start_runner
) -> None:
    task_id = await add_task(database)
    heard: list[Decimal] = []

    async def worker(task: Task, progress: Progress) -> None:
        if task.attempts == 1:
            await progress(60)
            await expire_lease(database, task.id)
            return
        await progress(10)
        await progress(80)
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    async with start_runner(
        worker, lease_s=3600, on_progress=lambda _, percent: heard.append(percent)
    ) as running:
        await running.signals.wait_for(TaskSignal.POSTPONED)
        await expire_lease(database, task_id)
        await running.signals.wait_for(TaskSignal.ENDED)
    assert heard == [60, 80]


async def test_progress_outside_of_0_to_100_is_refused(database: Database, start_runner) -> None:
    task_id = await add_task(database)

    async def worker(task: Task, progress: Progress) -> None:
        await progress(101)

    async with start_runner(worker) as running:
        await running.signals.wait_for(TaskSignal.POSTPONED)
    error = (await task_row(database, task_id))["error_data"]
    assert error == '{"message": "the worker raised ValueError", "error_code": "TASK_ATTEMPT_FAILED"}'


@pytest.mark.guarantee("G06")
async def test_task_that_always_fails_is_passed_to_on_exhausted(database: Database, start_runner) -> None:
    task_id = await add_task(database)
    attempts: list[int] = []

    async def worker(task: Task, progress: Progress) -> None:
        attempts.append(task.attempts)
        raise RuntimeError("broken")

    async def on_exhausted(task: Task) -> None:
        await fail(database, task)

    async with start_runner(worker, on_exhausted=on_exhausted, attempts_max=2) as running:
        for times in (1, 2):
            await running.signals.wait_for(TaskSignal.POSTPONED, times)
            await expire_lease(database, task_id)
        await running.signals.wait_for(TaskSignal.ENDED)
    assert attempts == [1, 2]
    row = await task_row(database, task_id)
    assert (row["status"], row["attempts"]) == ("FAILED", 3)


async def test_task_left_open_by_its_worker_is_postponed(database: Database, start_runner) -> None:
    task_id = await add_task(database)

    async def worker(task: Task, progress: Progress) -> None:
        return

    async with start_runner(worker) as running:
        await running.signals.wait_for(TaskSignal.POSTPONED)
    assert "TASK_UNFINISHED" in (await task_row(database, task_id))["error_data"]


async def test_graceful_stop_lets_a_worker_finish(database: Database, held: Held, start_runner) -> None:
    task_id = await add_task(database)
    async with start_runner(held, stop_grace_s=60) as running:
        await held.has_started()
        running.runner.stop()
        held.go_on.set()
        await running.ended()
    assert (await task_row(database, task_id))["status"] == "COMPLETED"


async def test_graceful_stop_releases_an_unfinished_task_at_once(
    database: Database, held: Held, start_runner
) -> None:
    task_id = await add_task(database)
    async with start_runner(held, stop_grace_s=0) as running:
        await held.has_started()
        running.runner.stop()
        await running.ended()
        assert running.runner.statistics().released == 1
    row = await task_row(database, task_id)
    assert (row["status"], row["attempts"]) == ("PENDING", 0)


async def test_two_runners_share_the_tasks_and_run_each_once(database: Database, start_runner) -> None:
    task_ids = [await add_task(database) for _ in range(20)]

    async def worker(task: Task, progress: Progress) -> None:
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    async with start_runner(worker) as one, start_runner(worker) as other:
        while one.signals.counts[TaskSignal.ENDED] + other.signals.counts[TaskSignal.ENDED] < len(task_ids):
            await one.signals.wait_for_next(TaskSignal.IDLE)
    for task_id in task_ids:
        row = await task_row(database, task_id)
        assert (row["status"], row["attempts"]) == ("COMPLETED", 1)
