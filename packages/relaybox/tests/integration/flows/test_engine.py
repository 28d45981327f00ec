"""Flows on tasks: steps take effect once, waits hold nothing, and each ends once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from relaybox.db import Database, executor_of
from relaybox.events import fetch_chain
from relaybox.flows import (
    Flow,
    FlowInvalid,
    cancel,
    flow,
    resume,
    start_flow,
)
from relaybox.tasks import TaskSignal, cancel_task
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.flow_engine import (
    HOUR,
    Runner,
    effect,
    effects_of,
    error_of,
    started,
    status_of,
    until_status,
    until_suspended,
)


@flow("Test.Steps")
async def steps(current: Flow, arguments: dict[str, Any]) -> dict[str, Any]:
    first = await current.step("first", lambda db: effect(db, "first"))
    answer = await current.wait_for_resume("approval", timeout=HOUR)
    second = await current.step("second", lambda db: effect(db, "second"))
    return {"first": first, "answer": answer, "second": second, "given": arguments}


@pytest.mark.usefixtures("effects")
@pytest.mark.guarantee("G44")
async def test_flow_waits_and_goes_on_with_the_payload(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, steps, amount=3)
    async with run_flows(steps):
        await until_suspended(database, flow_id)
        await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {"yes": True}))
        result = await until_status(database, flow_id, "COMPLETED")
    assert result == {"first": "FIRST", "answer": {"yes": True}, "second": "SECOND", "given": {"amount": 3}}
    assert await effects_of(database) == ["first", "second"]


@pytest.mark.usefixtures("effects")
@pytest.mark.guarantee("G44")
async def test_resume_before_the_wait_is_delivered(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, steps)
    await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {"early": True}))
    async with run_flows(steps):
        result = await until_status(database, flow_id, "COMPLETED")
    assert result is not None
    assert result["answer"] == {"early": True}


@pytest.mark.usefixtures("effects")
async def test_waiting_flow_is_not_claimed(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, steps)
    async with run_flows(steps) as signals:
        assert await until_suspended(database, flow_id) > datetime.now(UTC) + timedelta(minutes=59)
        claimed = signals.counts[TaskSignal.CLAIMED]
        await signals.wait_for_next(TaskSignal.IDLE)
        await signals.wait_for_next(TaskSignal.IDLE)
        assert signals.counts[TaskSignal.CLAIMED] == claimed


@flow("Test.Sleep")
async def sleeps(current: Flow, arguments: dict[str, Any]) -> dict[str, Any]:
    await current.sleep_until("nap", datetime.now(UTC) + timedelta(seconds=arguments["seconds"]))
    return {"slept": True}


async def test_flow_sleeps_until_its_first_time(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, sleeps, seconds=3_600)
    async with run_flows(sleeps):
        first = await until_suspended(database, flow_id)
        async with database.connection() as connection:
            await connection.fetch("UPDATE async_tasks SET not_before = NULL WHERE id = $1", flow_id)
        assert await until_suspended(database, flow_id) == first


async def test_flow_wakes_when_its_time_has_come(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, sleeps, seconds=0.2)
    async with run_flows(sleeps):
        assert await until_status(database, flow_id, "COMPLETED") == {"slept": True}


@pytest.mark.usefixtures("effects")
@pytest.mark.guarantee("G44")
async def test_step_whose_transaction_fails_is_repeated_alone(database: Database, run_flows: Runner) -> None:
    fails = [True]

    async def fragile(db: AsyncSession) -> str:
        await effect(db, "fragile")
        if fails.pop():
            raise RuntimeError("no network")
        return "done"

    @flow("Test.Fragile")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        await current.step("before", lambda db: effect(db, "before"))
        return {"fragile": await current.step("fragile", fragile)}

    fails[:] = [False, True]
    flow_id = await started(database, definition)
    async with run_flows(definition):
        assert await until_status(database, flow_id, "COMPLETED") == {"fragile": "done"}
    assert await effects_of(database) == ["before", "fragile"]


async def test_flow_whose_step_always_fails_is_parked(database: Database, run_flows: Runner) -> None:
    async def fail(_: AsyncSession) -> None:
        raise RuntimeError("no network")

    @flow("Test.Failing")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> None:
        await current.step("fail", fail)

    flow_id = await started(database, definition)
    async with run_flows(definition, attempts_max=1):
        await until_status(database, flow_id, "FAILED")
    assert await error_of(database, flow_id) == {
        "error_code": "FLOW_STEP_FAILED",
        "message": "a step failed on every attempt; the last failure was TASK_ATTEMPT_FAILED: "
        "the worker raised RuntimeError",
    }


@pytest.mark.usefixtures("effects")
async def test_changed_function_is_refused(database: Database, run_flows: Runner) -> None:
    @flow("Test.Steps")
    async def changed(current: Flow, _arguments: dict[str, Any]) -> None:
        await current.step("other", lambda db: effect(db, "other"))

    flow_id = await started(database, steps)
    async with run_flows(steps):
        await until_suspended(database, flow_id)
    await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {}))
    async with run_flows(changed, attempts_max=1):
        await until_status(database, flow_id, "FAILED")
    assert await effects_of(database) == ["first"]


async def test_other_version_is_not_claimed(database: Database, run_flows: Runner) -> None:
    @flow("Test.Steps", version=2)
    async def newer(_current: Flow, _arguments: dict[str, Any]) -> None:
        return None

    flow_id = await started(database, steps)
    async with run_flows(newer) as signals:
        await signals.wait_for_next(TaskSignal.IDLE)
        await signals.wait_for_next(TaskSignal.IDLE)
    assert (await status_of(database, flow_id))[0] == "PENDING"


async def test_flow_with_an_id_is_started_once(database: Database) -> None:
    flow_id = uuid4()
    for _ in range(2):
        await database.run_in_transaction(lambda db: start_flow(db, steps, {}, flow_id=flow_id))
    async with database.connection() as connection:
        assert len(await connection.fetch("SELECT FROM async_tasks")) == 1


@pytest.mark.usefixtures("effects")
async def test_events_of_a_wait_are_in_the_chain_of_the_flow(database: Database, run_flows: Runner) -> None:
    chain = uuid4()
    flow_id = await database.run_in_transaction(lambda db: start_flow(db, steps, {}, chain_id=chain))
    async with run_flows(steps):
        await until_suspended(database, flow_id)
        await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {}))
        await until_status(database, flow_id, "COMPLETED")
    async with database.connection() as connection:
        names = [event.type for event in await fetch_chain(connection, chain)]
    assert names == ["Relaybox.Flow.PauseRequested", "Relaybox.Flow.Paused", "Relaybox.Flow.Resumed"]


@pytest.mark.usefixtures("effects")
async def test_cancelled_wait_fails_the_flow(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, steps)
    async with run_flows(steps, attempts_max=1):
        await until_suspended(database, flow_id)
        await database.run_in_transaction(lambda db: cancel(db, f"{flow_id}/approval"))
        await until_status(database, flow_id, "FAILED")


@pytest.mark.usefixtures("effects")
async def test_cancelled_flow_is_never_resumed(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, steps)
    async with run_flows(steps) as signals:
        await until_suspended(database, flow_id)
        await database.run_in_transaction(lambda db: cancel_task(executor_of(db), flow_id))
        await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {}))
        await signals.wait_for_next(TaskSignal.IDLE)
    assert (await status_of(database, flow_id))[0] == "CANCELLED"
    assert await effects_of(database) == ["first"]


@pytest.mark.parametrize(("name", "version"), [("", 1), ("a@b", 1), ("x" * 121, 1), ("a", 0)])
def test_malformed_declaration_is_refused(name: str, version: int) -> None:
    with pytest.raises(FlowInvalid):
        flow(name, version=version)
