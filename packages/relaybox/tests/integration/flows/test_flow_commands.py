"""Flows that do the work of a command: the command ends with its flow."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic_core import from_json
from relaybox.commands import CommandService
from relaybox.db import Database
from relaybox.events import erase
from relaybox.flows import (
    Flow,
    FlowCancellation,
    cancel_flow,
    fetch_handle,
    flow,
    resume,
    start_flow_for_command,
)
from relaybox.operations import cancel_flow as cancel_flow_by_operator
from relaybox.operations import cancel_open_task
from relaybox.outbox import Notifier
from relaybox.tasks import cancel_task, fetch_task
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.counters import AGENT, counters, submit
from tests.fixtures.flow_engine import HOUR, Runner, started, status_of, until_status, until_suspended
from tests.fixtures.task_rows import add_command, add_task


@flow("Test.Approval")
async def approval(current: Flow, arguments: dict[str, Any]) -> dict[str, Any]:
    answer = await current.wait_for_resume("approval", timeout=HOUR)

    async def pay(_: AsyncSession) -> None:
        if answer.get("fails"):
            raise RuntimeError("no network")

    await current.step("pay", pay)
    return {"paid": arguments["cents"]}


@pytest.fixture
async def service(database: Database) -> AsyncIterator[CommandService]:
    service = CommandService(database, [counters], notifier=Notifier(database), source_service="suite")
    yield service
    await service.close()


async def started_for(database: Database, command_id: UUID) -> UUID | None:
    return await database.run_in_transaction(
        lambda db: start_flow_for_command(db, approval, command_id, {"cents": 5})
    )


async def command_of(database: Database, command_id: UUID) -> tuple[str, dict[str, Any] | None]:
    async with database.connection() as connection:
        [row] = await connection.fetch(
            "SELECT status::text, error_data::text FROM command_inbox WHERE id = $1", command_id
        )
    return row["status"], None if row["error_data"] is None else from_json(row["error_data"])


@pytest.mark.guarantee("G06")
async def test_command_is_completed_with_its_flow(database: Database, run_flows: Runner) -> None:
    command_id = await add_command(database)
    assert await started_for(database, command_id) == command_id
    assert await command_of(database, command_id) == ("PROCESSING", None)
    async with run_flows(approval):
        await until_suspended(database, command_id)
        await database.run_in_transaction(lambda db: resume(db, f"{command_id}/approval", {}))
        assert await until_status(database, command_id, "COMPLETED") == {"paid": 5}
    assert await command_of(database, command_id) == ("COMPLETED", None)


async def test_command_has_one_flow(database: Database) -> None:
    command_id = await add_command(database)
    assert [await started_for(database, command_id) for _ in range(2)] == [command_id, command_id]
    async with database.connection() as connection:
        assert len(await connection.fetch("SELECT FROM async_tasks")) == 1


@pytest.mark.parametrize("status", [None, "PROCESSING", "COMPLETED", "FAILED"])
async def test_command_that_is_not_received_gets_no_flow(database: Database, status: str | None) -> None:
    command_id = uuid4() if status is None else await add_command(database, status=status)
    assert await started_for(database, command_id) is None
    async with database.connection() as connection:
        assert not await connection.fetch("SELECT FROM async_tasks")


@pytest.mark.guarantee("G06")
async def test_command_of_a_parked_flow_fails(database: Database, run_flows: Runner) -> None:
    command_id = await add_command(database)
    await started_for(database, command_id)
    async with run_flows(approval, attempts_max=1):
        await until_suspended(database, command_id)
        await database.run_in_transaction(lambda db: resume(db, f"{command_id}/approval", {"fails": True}))
        await until_status(database, command_id, "FAILED")
    async with database.connection() as connection:
        task = await fetch_task(connection, command_id)
    assert task is not None
    assert task.error_data is not None
    assert task.error_data["error_code"] == "FLOW_STEP_FAILED"
    assert await command_of(database, command_id) == ("FAILED", task.error_data)


@pytest.mark.guarantee("G06")
@pytest.mark.parametrize("by", ["application", "flow cancel", "task cancel"])
async def test_command_of_a_cancelled_flow_fails(database: Database, run_flows: Runner, by: str) -> None:
    command_id = await add_command(database)
    await started_for(database, command_id)
    async with run_flows(approval):
        await until_suspended(database, command_id)
    if by == "application":
        done = await database.run_in_transaction(lambda db: cancel_flow(db, command_id))
        assert done == FlowCancellation(flow_id=command_id, correlation_id=f"{command_id}/approval")
    elif by == "flow cancel":
        await cancel_flow_by_operator(database, command_id, by="ann", reason="test")
    else:
        assert (await cancel_open_task(database, command_id, by="ann", reason="test")).is_flow
    status, error = await command_of(database, command_id)
    assert error is not None
    assert (status, error["error_code"]) == ("FAILED", "FLOW_CANCELLED")
    async with database.connection() as connection:
        handle = await fetch_handle(connection, f"{command_id}/approval")
    assert handle is not None
    assert handle.cancelled


async def suspended_for(database: Database, run_flows: Runner, command_id: UUID) -> None:
    """Start the flow of the command, and return when the flow is suspended."""
    await started_for(database, command_id)
    async with run_flows(approval):
        await until_suspended(database, command_id)


async def test_erasure_ends_a_suspended_flow(database: Database, run_flows: Runner) -> None:
    command_id = await add_command(database)
    await suspended_for(database, run_flows, command_id)
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT session_id FROM command_inbox WHERE id = $1", command_id)
    erasure = await database.run_in_transaction(
        lambda db: erase(db, "COUNTER", [row["session_id"]], actor="ann", reason="asked"),
        isolation="READ COMMITTED",
    )
    assert (erasure.commands, erasure.tasks) == (1, 1)
    assert (await status_of(database, command_id))[0] == "CANCELLED"
    assert (await command_of(database, command_id))[0] == "FAILED"


@pytest.mark.guarantee("G06")
async def test_settlement_of_a_command_ends_its_suspended_flow(
    database: Database, run_flows: Runner, service: CommandService
) -> None:
    counter_id = (await submit(service, "CreateCounter")).aggregate_id
    command_id = (await submit(service, "RequestCount", counter_id)).command_id
    await suspended_for(database, run_flows, command_id)
    await submit(service, "ReportCount", counter_id, caller=AGENT, command_id=str(command_id), found=0)
    assert (await status_of(database, command_id))[0] == "COMPLETED"
    assert (await command_of(database, command_id))[0] == "COMPLETED"


async def test_flow_that_has_ended_is_not_cancelled(database: Database) -> None:
    flow_id = await started(database, approval, cents=1)
    assert await database.run_in_transaction(lambda db: cancel_flow(db, uuid4())) is None
    assert await database.run_in_transaction(lambda db: cancel_flow(db, flow_id)) is not None
    assert await database.run_in_transaction(lambda db: cancel_flow(db, flow_id)) is None


async def test_command_of_another_task_is_left_to_the_application(database: Database) -> None:
    task_id = await add_task(database)
    found = await cancel_open_task(database, task_id, by="ann", reason="test")
    assert found.command_id is not None
    assert not found.is_flow
    assert await command_of(database, found.command_id) == ("PROCESSING", None)


async def test_ended_task_leaves_its_command_alone(database: Database) -> None:
    command_id = await add_command(database)
    await started_for(database, command_id)
    async with database.connection() as connection:
        await cancel_task(connection, command_id)
    assert await database.run_in_transaction(lambda db: cancel_flow(db, command_id)) is None
    assert await command_of(database, command_id) == ("PROCESSING", None)
