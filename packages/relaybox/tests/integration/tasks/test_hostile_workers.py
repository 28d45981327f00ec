"""A worker that raises an exception meant to end a program or a task loses one attempt, like any other."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from relaybox.db import Database
from relaybox.tasks import Progress, Task, TaskSignal, WorkerAborted, complete_task, run_due_tasks

from tests.fixtures.task_rows import TASK_TYPE, add_task, expire_lease, fail, task_row


class Abort(BaseException):
    """Neither an error nor one of Python's exceptions that end a program."""


async def abort() -> None:
    raise Abort


async def exit_process() -> None:
    raise SystemExit(3)


async def await_cancelled_work() -> None:
    work = asyncio.create_task(asyncio.Event().wait())
    work.cancel()
    await work


async def cancel_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def cancel_itself_and_wait() -> None:
    await cancel_itself()
    await asyncio.Event().wait()


each_act = pytest.mark.parametrize(
    "act", [abort, exit_process, await_cancelled_work, cancel_itself, cancel_itself_and_wait]
)
Act = Callable[[], Awaitable[None]]


@pytest.mark.guarantee("G43")
@each_act
async def test_worker_that_aborts_is_retried_and_holds_nothing(
    act: Act, database: Database, start_runner
) -> None:
    task_id = await add_task(database)

    async def worker(task: Task, progress: Progress) -> None:
        if task.attempts == 1:
            await act()
        async with database.connection() as connection:
            await complete_task(connection, task.fence, result={})

    async with start_runner(worker, lease_s=3600) as running:
        await running.signals.wait_for(TaskSignal.POSTPONED)
        assert running.runner.statistics().running == 0
        assert "WORKER_ABORTED" in (await task_row(database, task_id))["error_data"]
        await expire_lease(database, task_id)
        await running.signals.wait_for(TaskSignal.ENDED)
    assert (await task_row(database, task_id))["status"] == "COMPLETED"


@each_act
async def test_on_exhausted_that_aborts_is_called_again(act: Act, database: Database, start_runner) -> None:
    task_id = await add_task(database)
    calls: list[int] = []

    async def worker(task: Task, progress: Progress) -> None:
        raise RuntimeError("broken")

    async def on_exhausted(task: Task) -> None:
        calls.append(task.attempts)
        if len(calls) == 1:
            await act()
        await fail(database, task)

    async with start_runner(worker, on_exhausted=on_exhausted, attempts_max=1) as running:
        for times in (1, 2):
            await running.signals.wait_for(TaskSignal.POSTPONED, times)
            await expire_lease(database, task_id)
        await running.signals.wait_for(TaskSignal.ENDED)
    assert calls == [2, 3]
    assert (await task_row(database, task_id))["status"] == "FAILED"


@pytest.mark.parametrize("act", [abort, exit_process, await_cancelled_work])
async def test_run_due_tasks_returns_the_abort_of_a_worker(act: Act, database: Database) -> None:
    await add_task(database)

    async def worker(task: Task, progress: Progress) -> None:
        await act()

    [run] = await run_due_tasks(database, {TASK_TYPE: worker}, on_exhausted=never)
    assert isinstance(run.failure, WorkerAborted)


async def never(task: Task) -> None:
    raise AssertionError(f"task {task.id} was handed over as exhausted")
