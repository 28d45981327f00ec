"""Queries and actions of operators on tasks."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.flows import fetch_handle
from relaybox.operations import (
    SelectionEmpty,
    TaskCommandSettled,
    TaskSelection,
    cancel_open_task,
    list_tasks,
    preview_task_retry,
    retry_tasks,
    show_flow,
    show_task,
)
from relaybox.tasks._store import claim_tasks
from relaybox_types.enums import TaskStatus

from tests.fixtures.flow_runs import fail_flow, order_flow, run_flows, start
from tests.fixtures.letters import wait_for_lock_waits
from tests.fixtures.outbox_rows import operator_acts
from tests.fixtures.task_rows import TASK_TYPE, add_task, fail, task_row

EVERY = TaskSelection()


async def failed_task(database: Database, *, command: str = "PROCESSING") -> UUID:
    task_id = await add_task(database)
    async with database.connection() as connection:
        (task,) = await claim_tasks(connection, [TASK_TYPE], tasks_max=1, lease_s=60.0)
    await fail(database, task)
    async with database.connection() as connection:
        await connection.fetch("UPDATE command_inbox SET status = $2 WHERE id = $1", task.command_id, command)
    return task_id


async def test_tasks_are_selected_by_each_condition(database: Database) -> None:
    failed, pending = await failed_task(database), await add_task(database)
    flow_id = await start(database, order_flow)
    cancelled = await add_task(database)
    await cancel_open_task(database, cancelled, by="ann", reason="test")
    async with database.connection() as connection:
        for selection, wanted in (
            (EVERY, [failed, pending, flow_id]),
            (TaskSelection(types=(TASK_TYPE,)), [failed, pending]),
            (TaskSelection(types=("Test.Order@2",)), [flow_id]),
            (TaskSelection(ids=(cancelled,)), [cancelled]),
            (TaskSelection(statuses=(TaskStatus.CANCELLED,)), [cancelled]),
        ):
            assert [one.id for one in await list_tasks(connection, selection, tasks_max=9)] == wanted
        assert len(await list_tasks(connection, EVERY, tasks_max=2)) == 2


async def test_task_is_shown_without_input_unless_requested(database: Database) -> None:
    task_id = await failed_task(database)
    async with database.connection() as connection:
        shown = await show_task(connection, task_id)
        whole = await show_task(connection, task_id, with_payload=True)
        with pytest.raises(SelectionEmpty, match="there is no task"):
            await show_task(connection, uuid4())
    assert (shown.task.error_code, shown.task.command_status) == ("GIVEN_UP", "PROCESSING")
    assert (shown.input_data, whole.input_data) == (None, {"seed": 7})


@pytest.mark.guarantee("G43")
async def test_retried_task_is_pending_with_no_attempts(database: Database) -> None:
    task_id = await failed_task(database)
    done = await retry_tasks(database, TaskSelection(ids=(task_id,)), by="ann", reason="repaired")
    assert (done.tasks_total, done.refused_total) == (1, 0)
    row = await task_row(database, task_id)
    assert (row["status"], row["attempts"]) == ("PENDING", 0)
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("ann", "retry", "repaired")
    async with database.connection() as connection:
        assert [one["act"] for one in (await show_task(connection, task_id)).acts] == ["retry"]
    with pytest.raises(SelectionEmpty, match="none of the named tasks is FAILED"):
        await retry_tasks(database, TaskSelection(ids=(task_id,)), by="ann")


@pytest.mark.guarantee("G43")
@pytest.mark.parametrize("command", ["COMPLETED", "FAILED"])
async def test_task_with_a_settled_command_is_not_retried(database: Database, command: str) -> None:
    settled, open_ = await failed_task(database, command=command), await failed_task(database)
    named = TaskSelection(ids=(settled,))
    with pytest.raises(TaskCommandSettled, match=f"is {command}, so the result of another attempt"):
        await retry_tasks(database, named, by="ann")
    async with database.connection() as connection:
        with pytest.raises(TaskCommandSettled):
            await preview_task_retry(connection, named, tasks_max=9)
        found = await preview_task_retry(connection, EVERY, tasks_max=9)
    assert ([one.id for one in found.tasks], found.tasks_total, found.refused_total) == ([open_], 1, 1)
    done = await retry_tasks(database, EVERY, by="ann")
    assert (done.tasks_total, done.refused_total) == (1, 1)
    assert (await task_row(database, settled))["status"] == "FAILED"


async def test_task_with_a_removed_command_or_input_is_not_retried(database: Database) -> None:
    removed, erased = await failed_task(database), await failed_task(database)
    async with database.connection() as connection:
        await connection.fetch(
            "DELETE FROM command_inbox WHERE id = "
            "(SELECT triggered_by_command_id FROM async_tasks WHERE id = $1)",
            removed,
        )
        await connection.fetch("UPDATE async_tasks SET input_data = NULL WHERE id = $1", erased)
    with pytest.raises(TaskCommandSettled, match="is removed by retention"):
        await retry_tasks(database, TaskSelection(ids=(removed,)), by="ann")
    with pytest.raises(SelectionEmpty, match="was erased"):
        await retry_tasks(database, TaskSelection(ids=(erased,)), by="ann")


@pytest.mark.guarantee("G43")
async def test_two_operators_retry_each_task_once(database: Database, superuser: asyncpg.Connection) -> None:
    tasks = {str(await failed_task(database)) for _ in range(5)}
    async with superuser.transaction():
        # Both calls wait for this lock: both have selected the tasks before one of them changes any.
        await superuser.execute("SELECT FROM async_tasks ORDER BY id LIMIT 1 FOR UPDATE")
        calls = [asyncio.create_task(retry_tasks(database, EVERY, by=name)) for name in ("ann", "bob")]
        await wait_for_lock_waits(database, 2)
    assert sorted(call.tasks_total for call in await asyncio.gather(*calls)) == [0, 5]
    [act] = await operator_acts(database)
    assert {*act["target"]["tasks"]} == tasks


@pytest.mark.guarantee("G43")
async def test_many_tasks_are_retried_in_steps(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relaybox.operations._tasks._STEP_TASKS_MAX", 2)
    for _ in range(5):
        await failed_task(database)
    assert (await retry_tasks(database, EVERY, by="ann")).tasks_total == 5
    assert [act["target"]["count"] for act in await operator_acts(database)] == [2, 2, 1]


@pytest.mark.guarantee("G44")
async def test_retried_flow_goes_on_at_the_failed_step(database: Database) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    await fail_flow(database, flow_id)
    await retry_tasks(database, TaskSelection(ids=(flow_id,)), by="ann")
    async with database.connection() as connection:
        before = await show_flow(connection, flow_id)
        # The repair of what let the step fail.
        await connection.fetch(
            "UPDATE flow_steps SET result = '{\"value\": {}}' WHERE task_id = $1 AND name = 'approval'",
            flow_id,
        )
    await run_flows(database)
    async with database.connection() as connection:
        after = await show_flow(connection, flow_id)
    assert [step.name for step in before.steps] == ["reserve", "approval"]
    assert [step.name for step in after.steps] == ["reserve", "approval", "charge"]
    assert after.flow.correlation_id == f"{flow_id}/payment"


@pytest.mark.guarantee("G44")
async def test_cancelled_task_of_a_flow_ends_its_pause(database: Database) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    was = await cancel_open_task(database, flow_id, by="ann", reason="test")
    async with database.connection() as connection:
        handle = await fetch_handle(connection, f"{flow_id}/approval")
    assert handle is not None
    assert (was.status, handle.cancelled) == ("PENDING", True)
    assert (await task_row(database, flow_id))["status"] == "CANCELLED"
    with pytest.raises(SelectionEmpty, match="is CANCELLED"):
        await cancel_open_task(database, flow_id, by="ann", reason="again")
