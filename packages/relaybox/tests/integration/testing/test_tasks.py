"""Tasks whose time a test controls."""

from uuid import UUID

import pytest
from relaybox.db import Database
from relaybox.tasks import AttemptOutcome, Progress, Task, complete_task, fail_task
from relaybox.testing import Tasks

from tests.fixtures.task_rows import TASK_TYPE, add_task, task_row


class Worker:
    """Complete the task in the third attempt."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.attempts: list[int] = []

    async def __call__(self, task: Task, progress: Progress) -> None:
        self.attempts.append(task.attempts)
        await progress(50)
        if task.attempts < 3:
            raise ValueError("not yet")
        async with self._database.connection() as connection:
            await complete_task(connection, task.fence, result={"text": "done"})


async def status(database: Database, task_id: UUID) -> str:
    return (await task_row(database, task_id))["status"]


async def test_postponed_task_runs_again_when_time_was_advanced(
    relaybox_database: Database, relaybox_tasks: Tasks
) -> None:
    task_id, worker = await add_task(relaybox_database), Worker(relaybox_database)
    [run] = await relaybox_tasks.run_due({TASK_TYPE: worker})
    assert (run.task.id, run.outcome) == (task_id, AttemptOutcome.POSTPONED)
    assert isinstance(run.failure, ValueError)
    assert await relaybox_tasks.run_due({TASK_TYPE: worker}) == []
    assert await relaybox_tasks.advance(0.5) == 1  # the pause after the first attempt is 1 s
    assert await relaybox_tasks.run_due({TASK_TYPE: worker}) == []
    for seconds in (0.6, 2.1):
        await relaybox_tasks.advance(seconds)
        [run] = await relaybox_tasks.run_due({TASK_TYPE: worker})
    assert (run.outcome, run.failure, worker.attempts) == (AttemptOutcome.ENDED, None, [1, 2, 3])
    assert await status(relaybox_database, task_id) == "COMPLETED"
    assert await relaybox_tasks.run_due({TASK_TYPE: worker}) == []


async def test_suspended_task_runs_when_its_time_has_come(
    relaybox_database: Database, relaybox_tasks: Tasks
) -> None:
    task_id, worker = await add_task(relaybox_database), Worker(relaybox_database)
    async with relaybox_database.connection() as connection:
        await connection.fetch("UPDATE async_tasks SET not_before = now() + interval '1 h'")
    assert await relaybox_tasks.run_due({TASK_TYPE: worker}) == []
    await relaybox_tasks.advance(3_601)
    [run] = await relaybox_tasks.run_due({TASK_TYPE: worker})
    assert run.task.id == task_id


async def test_tasks_run_in_the_order_of_their_creation(
    relaybox_database: Database, relaybox_tasks: Tasks
) -> None:
    ids = [await add_task(relaybox_database) for _ in range(3)]
    runs = await relaybox_tasks.run_due({TASK_TYPE: Worker(relaybox_database)})
    assert [run.task.id for run in runs] == ids
    assert await relaybox_tasks.run_due({"other": Worker(relaybox_database)}) == []


async def test_exhausted_task_reaches_its_function_or_fails_the_test(
    relaybox_database: Database, relaybox_tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASK_ATTEMPTS_MAX", "1")
    task_id, worker = await add_task(relaybox_database), Worker(relaybox_database)

    async def give_up(task: Task) -> None:
        async with relaybox_database.connection() as connection:
            await fail_task(connection, task.fence, error={"error_code": "GAVE_UP"})

    await relaybox_tasks.run_due({TASK_TYPE: worker})
    await relaybox_tasks.advance(60)
    with pytest.raises(AssertionError, match=r"claimed 2 times, more than TASK_ATTEMPTS_MAX"):
        await relaybox_tasks.run_due({TASK_TYPE: worker})
    await relaybox_tasks.advance(60)
    [run] = await relaybox_tasks.run_due({TASK_TYPE: worker}, on_exhausted=give_up)
    assert (run.outcome, worker.attempts) == (AttemptOutcome.ENDED, [1])
    assert await status(relaybox_database, task_id) == "FAILED"
