"""Statements on tasks: creation with the command, claims, leases, and ends."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from relaybox.commands import InboxCommand, append_events, settle_command
from relaybox.db import Database, executor_of
from relaybox.tasks import (
    Fence,
    Progress,
    Task,
    TaskLost,
    TaskSignal,
    cancel_task,
    complete_task,
    create_task,
    fail_task,
    fetch_task,
    suspend_task,
    wake_tasks,
)
from relaybox.tasks._store import claim_tasks, release_task, renew_leases, report_progress
from relaybox_types.enums import CommandStatus, TaskStatus
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.event_publishing import new_event
from tests.fixtures.task_rows import TASK_TYPE, add_command, add_task, cancel, expire_lease, task_row


async def claim_one(database: Database, lease_s: float = 60.0) -> Fence:
    async with database.connection() as connection:
        (task,) = await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=lease_s)
    return task.fence


async def test_created_task_sets_its_command_to_processing(database: Database) -> None:
    task_id = await add_task(database)
    row = await task_row(database, task_id)
    assert (row["status"], row["progress"], row["attempts"]) == ("PENDING", 0, 0)
    async with database.connection() as connection:
        status = await connection.fetchval(
            "SELECT status FROM command_inbox WHERE id = $1", row["triggered_by_command_id"]
        )
    assert status == "PROCESSING"


@pytest.mark.parametrize("status", ["PROCESSING", "COMPLETED", "FAILED"])
async def test_command_that_is_no_longer_pending_gets_no_task(database: Database, status: str) -> None:
    command_id = await add_command(database, status=status)
    async with database.connection() as connection:
        made = await create_task(
            connection, task_type=TASK_TYPE, command_id=command_id, aggregate_id=uuid4(), input_data={}
        )
        assert made is None
        assert await connection.fetchval("SELECT count(*) FROM async_tasks") == 0


async def test_claimed_task_cannot_be_claimed_again(database: Database) -> None:
    await add_task(database)
    await claim_one(database)
    async with database.connection() as connection:
        assert await claim_tasks(connection, [TASK_TYPE], tasks_max=10, lease_s=60) == []


async def test_runner_claims_only_types_it_has_workers_for(database: Database) -> None:
    await add_task(database)
    async with database.connection() as connection:
        assert await claim_tasks(connection, ["other"], tasks_max=10, lease_s=60) == []


async def test_input_is_returned_as_it_was_given(database: Database) -> None:
    await add_task(database)
    async with database.connection() as connection:
        (task,) = await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60)
    assert task.input_data == {"seed": 7}
    assert task.attempts == 1


@pytest.mark.guarantee("G43")
async def test_result_of_a_worker_that_lost_its_task_is_refused(database: Database) -> None:
    task_id = await add_task(database)
    former = await claim_one(database)
    await expire_lease(database, task_id)
    present = await claim_one(database)
    async with database.connection() as connection:
        with pytest.raises(TaskLost):
            await complete_task(connection, former, result={"by": "former"})
        with pytest.raises(TaskLost):
            await fail_task(connection, former, error={"by": "former"})
        with pytest.raises(TaskLost):
            await report_progress(connection, former, Decimal(50))
        await complete_task(connection, present, result={"by": "present"})
    row = await task_row(database, task_id)
    assert (row["status"], row["progress"], row["result_data"]) == ("COMPLETED", 100, '{"by": "present"}')


@pytest.mark.guarantee("G43")
async def test_cancelled_task_refuses_a_late_result(database: Database) -> None:
    task_id = await add_task(database)
    fence = await claim_one(database)
    await cancel(database, task_id)
    async with database.connection() as connection:
        with pytest.raises(TaskLost):
            await complete_task(connection, fence, result={})
    assert (await task_row(database, task_id))["status"] == "CANCELLED"


@pytest.mark.guarantee("G43")
async def test_progress_never_decreases(database: Database) -> None:
    task_id = await add_task(database)
    fence = await claim_one(database)
    async with database.connection() as connection:
        assert await report_progress(connection, fence, Decimal(60)) == 60
        assert await report_progress(connection, fence, Decimal(20)) == 60
    assert (await task_row(database, task_id))["progress"] == 60


@pytest.mark.guarantee("G43")
async def test_ended_task_is_never_claimed_again(database: Database) -> None:
    task_id = await add_task(database)
    fence = await claim_one(database)
    async with database.connection() as connection:
        await fail_task(connection, fence, error={"error_code": "GIVEN_UP"})
        assert await claim_tasks(connection, [TASK_TYPE], tasks_max=10, lease_s=60) == []
        with pytest.raises(TaskLost):
            await complete_task(connection, fence, result={})
    assert (await task_row(database, task_id))["status"] == "FAILED"


@pytest.mark.parametrize("status", ["COMPLETED", "FAILED"])
async def test_task_end_can_replace_its_input(database: Database, status: str) -> None:
    async with database.connection() as connection:
        for replaced, left in ((None, '{"seed": 7}'), ({}, "{}")):
            task_id = await add_task(database)
            fence = await claim_one(database)
            if status == "COMPLETED":
                await complete_task(connection, fence, result={}, input_data=replaced)
            else:
                await fail_task(connection, fence, error={}, input_data=replaced)
            row = await connection.fetchrow(
                "SELECT status::text, input_data::text FROM async_tasks WHERE id = $1", task_id
            )
            assert tuple(row) == (status, left)


async def test_renewal_returns_lost_and_cancelled_tasks(
    database: Database,
) -> None:
    task_id = await add_task(database)
    fence = await claim_one(database)
    stranger = Fence(task_id=task_id, lease_token=uuid4())
    async with database.connection() as connection:
        assert await renew_leases(connection, [fence], lease_s=60) == set()
        assert await renew_leases(connection, [stranger], lease_s=60) == {task_id}
        await cancel(database, task_id)
        assert await renew_leases(connection, [fence], lease_s=60) == {task_id}


async def test_renewal_does_not_wait_for_a_locked_task(database: Database) -> None:
    locked_id, free_id = await add_task(database), await add_task(database)
    fences = [await claim_one(database, lease_s=1), await claim_one(database, lease_s=1)]
    before = {id_: (await task_row(database, id_))["lease_until"] for id_ in (locked_id, free_id)}
    async with (
        database.connection() as other,
        other.transaction(),
        database.connection() as connection,
        connection.transaction(),
    ):
        await other.fetch("SELECT id FROM async_tasks WHERE id = $1 FOR UPDATE", locked_id)
        await connection.fetch("SET LOCAL lock_timeout = '1s'")
        assert await renew_leases(connection, fences, lease_s=60) == set()
    assert (await task_row(database, locked_id))["lease_until"] == before[locked_id]
    assert (await task_row(database, free_id))["lease_until"] > before[free_id]


async def test_task_that_its_worker_has_just_ended_is_not_lost(database: Database) -> None:
    await add_task(database)
    fence = await claim_one(database)
    async with database.connection() as connection:
        await complete_task(connection, fence, result={})
        assert await renew_leases(connection, [fence], lease_s=60) == set()


async def test_released_task_can_be_claimed_and_loses_no_attempt(database: Database) -> None:
    task_id = await add_task(database)
    fence = await claim_one(database)
    async with database.connection() as connection:
        assert await release_task(connection, fence)
        assert not await release_task(connection, fence)
    row = await task_row(database, task_id)
    assert (row["status"], row["attempts"]) == ("PENDING", 0)


async def test_refused_result_rolls_back_its_transaction(database: Database) -> None:
    stranger = Fence(task_id=uuid4(), lease_token=uuid4())
    command_id = await add_command(database)

    async def record_result(db: AsyncSession) -> None:
        executor = executor_of(db)
        await executor.fetch("UPDATE command_inbox SET status = 'COMPLETED' WHERE id = $1", command_id)
        await complete_task(executor, stranger, result={})

    with pytest.raises(TaskLost):
        await database.run_in_transaction(record_result)
    async with database.connection() as connection:
        status = await connection.fetchval("SELECT status FROM command_inbox WHERE id = $1", command_id)
    assert status == "RECEIVED"


@pytest.mark.guarantee("G43")
async def test_cancelled_task_is_not_claimed_and_its_worker_is_rejected(database: Database) -> None:
    waiting, running = await add_task(database), await add_task(database)
    async with database.connection() as connection:
        assert await cancel_task(connection, waiting)
        fence = await claim_one(database)
        assert fence.task_id == running
        assert await cancel_task(connection, running)
        assert not await cancel_task(connection, running)
        with pytest.raises(TaskLost):
            await complete_task(connection, fence, result={})
        assert await claim_tasks(connection, [TASK_TYPE], tasks_max=10, lease_s=60) == []
    assert {(await task_row(database, one))["status"] for one in (waiting, running)} == {"CANCELLED"}


async def test_fetch_task_returns_the_stored_row(database: Database) -> None:
    task_id = await add_task(database)
    async with database.connection() as connection:
        waiting = await fetch_task(connection, task_id)
        await complete_task(connection, await claim_one(database), result={"n": [1]})
        done = await fetch_task(connection, task_id)
        assert await fetch_task(connection, uuid4()) is None
    assert waiting is not None
    assert (waiting.status, waiting.progress, waiting.input_data) == (TaskStatus.PENDING, 0, {"seed": 7})
    assert (waiting.result_data, waiting.lease_token) == (None, None)
    assert done is not None
    assert (done.id, done.status, done.progress, done.result_data) == (
        task_id,
        TaskStatus.COMPLETED,
        100,
        {"n": [1]},
    )


async def test_command_and_task_are_created_and_ended_in_one_transaction(
    database: Database, start_runner
) -> None:
    """Created together by an endpoint; events and both ends written together by a worker elsewhere."""
    command = InboxCommand(
        command_id=uuid4(),
        command_type="ImportPgn",
        aggregate_id=uuid4(),
        payload={},
        status=CommandStatus.RECEIVED,
    )

    async def take(db: AsyncSession) -> None:
        await append_events(db, command, [])
        assert await create_task(
            executor_of(db),
            task_type=TASK_TYPE,
            command_id=command.command_id,
            aggregate_id=command.aggregate_id,
            input_data={"games": 500},
        )

    async def work(task: Task, progress: Progress) -> None:
        await progress(50)
        assert (task.aggregate_id, task.input_data) == (command.aggregate_id, {"games": 500})

        async def end(db: AsyncSession) -> None:
            await append_events(db, None, [new_event()])
            await complete_task(executor_of(db), task.fence, result={"studies": 8})
            assert await settle_command(executor_of(db), command.command_id, CommandStatus.COMPLETED)

        await database.run_in_transaction(end)

    async with start_runner(work) as running:
        await database.run_in_transaction(take)
        await running.signals.wait_for(TaskSignal.ENDED)
    async with database.connection() as connection:
        [row] = await connection.fetch(
            "SELECT inbox.status AS command, task.status, (SELECT count(*) FROM domain_events) AS facts"
            " FROM command_inbox AS inbox JOIN async_tasks AS task ON task.triggered_by_command_id = inbox.id"
        )
    assert tuple(row) == ("COMPLETED", "COMPLETED", 1)


async def add_task_of(database: Database, person: str | None) -> UUID:
    command_id = await add_command(database)
    async with database.connection() as connection:
        task_id = await create_task(
            connection,
            task_type=TASK_TYPE,
            command_id=command_id,
            aggregate_id=None,
            input_data={},
            fairness_key=person,
        )
    assert task_id is not None
    return task_id


async def test_backlog_of_one_person_delays_another_by_one_task(database: Database) -> None:
    greedy = [await add_task_of(database, "greedy") for _ in range(5)]
    modest = [await add_task_of(database, "modest") for _ in range(2)]
    alone = await add_task_of(database, None)
    async with database.connection() as connection:
        claimed = [
            (await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60))[0].id for _ in range(8)
        ]
    assert claimed == [greedy[0], modest[0], alone, greedy[1], modest[1], *greedy[2:]]


async def test_person_whose_tasks_have_ended_is_not_delayed(database: Database) -> None:
    for _ in range(3):
        await add_task_of(database, "diligent")
        fence = await claim_one(database)
        async with database.connection() as connection:
            await complete_task(connection, fence, result={})
    late = await add_task_of(database, "diligent")
    later = await add_task_of(database, "other")
    async with database.connection() as connection:
        tasks = await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60)
    assert [task.id for task in tasks] == [late] != [later]


async def test_task_suspended_beside_a_wake_is_woken(database: Database) -> None:
    task_id = await add_task(database)
    fence = await claim_one(database)
    later = datetime.now(UTC) + timedelta(hours=1)

    async def wake(db: AsyncSession) -> None:
        executor = executor_of(db)
        await executor.fetch("SELECT 1")  # takes the snapshot
        async with database.connection() as connection:
            if (await task_row(database, task_id))["status"] == "RUNNING":
                await suspend_task(connection, fence, not_before=later)
        await wake_tasks(executor, [task_id])

    await database.run_in_transaction(wake)
    row = await task_row(database, task_id)
    assert (row["status"], row["not_before"]) == ("PENDING", None)


async def test_woken_tasks_are_claimed_in_the_order_of_their_wake(database: Database) -> None:
    tasks = [await add_task(database) for _ in range(3)]
    later = datetime.now(UTC) + timedelta(hours=1)
    async with database.connection() as connection:
        for task in await claim_tasks(connection, [TASK_TYPE], tasks_max=3, lease_s=60):
            await suspend_task(connection, task.fence, not_before=later)
        await wake_tasks(connection, [tasks[2]])
        await wake_tasks(connection, [tasks[0]])
        created = await add_task(database)
        await wake_tasks(connection, [tasks[1]])
        order = [tasks[2], tasks[0], created, tasks[1]]
        claimed = [(await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60))[0].id for _ in order]
    assert claimed == order
