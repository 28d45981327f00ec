"""Steps of flows: one call per attempt, no effect after an error or while the flow waits."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from relaybox.db import Database
from relaybox.flows import Flow, flow, resume
from relaybox.tasks import TaskSignal
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.flow_engine import (
    HOUR,
    Runner,
    effect,
    effects_of,
    error_of,
    started,
    until_status,
    until_suspended,
)
from tests.fixtures.signal_recorder import SignalRecorder

pytestmark = pytest.mark.usefixtures("effects")


@pytest.mark.guarantee("G44")
async def test_step_longer_than_a_lease_renewal_is_called_once(database: Database, run_flows: Runner) -> None:
    runners: list[SignalRecorder] = []
    calls: list[str] = []

    async def slow(db: AsyncSession) -> str:
        calls.append("slow")
        done = await effect(db, "slow")
        for _ in range(2):
            await runners[0].wait_for_next(TaskSignal.RENEWED)
        return done

    @flow("Test.Slow")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        return {"slow": await current.step("slow", slow)}

    flow_id = await started(database, definition)
    async with run_flows(definition, lease_s=2.0) as signals:
        runners.append(signals)
        assert await until_status(database, flow_id, "COMPLETED") == {"slow": "SLOW"}
    assert (calls, await effects_of(database)) == (["slow"], ["slow"])


async def refuse(_: AsyncSession) -> None:
    raise LookupError("no such card")


@pytest.mark.guarantee("G44")
async def test_step_after_a_caught_error_is_refused(database: Database, run_flows: Runner) -> None:
    @flow("Test.Caught")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> None:
        try:
            await current.step("charge", refuse)
        except LookupError:
            await current.step("refund", lambda db: effect(db, "refund"))

    flow_id = await started(database, definition)
    async with run_flows(definition, attempts_max=1):
        await until_status(database, flow_id, "FAILED")
    assert await effects_of(database) == []
    message = (await error_of(database, flow_id))["message"]
    assert "FLOW_INVALID: Test.Caught@1 called 'refund' after its step 'charge' had raised Look" in message
    assert "Catch the error in the function of the step, and return a value" in message


@pytest.mark.guarantee("G44")
async def test_error_caught_in_the_step_is_compensated(database: Database, run_flows: Runner) -> None:
    async def charge(db: AsyncSession) -> bool:
        try:
            await refuse(db)
        except LookupError:
            return False
        return True

    @flow("Test.Compensated")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> None:
        if not await current.step("charge", charge):
            await current.step("release", lambda db: effect(db, "release"))
        await current.wait_for_resume("end", timeout=HOUR)

    flow_id = await started(database, definition)
    async with run_flows(definition):
        await until_suspended(database, flow_id)
        await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/end", {}))
        await until_status(database, flow_id, "COMPLETED")
    assert await effects_of(database) == ["release"]


async def test_flow_may_end_after_a_caught_error(database: Database, run_flows: Runner) -> None:
    @flow("Test.Ended")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            await current.step("charge", refuse)
        except LookupError:
            return {"charged": False}
        return {"charged": True}

    flow_id = await started(database, definition)
    async with run_flows(definition):
        assert await until_status(database, flow_id, "COMPLETED") == {"charged": False}


@pytest.mark.guarantee("G44")
async def test_no_step_runs_while_the_flow_is_suspended(database: Database, run_flows: Runner) -> None:
    calls: list[str] = []

    async def clean(db: AsyncSession) -> str:
        calls.append("clean")
        return await effect(db, "clean")

    @flow("Test.Finally")
    async def definition(current: Flow, arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            if arguments["sleeps"]:
                await current.sleep_until("nap", datetime.now(UTC) + HOUR)
            return await current.wait_for_resume("approval", timeout=HOUR)
        finally:
            await current.step("clean", clean)

    asleep = await started(database, definition, sleeps=True)
    flow_id = await started(database, definition, sleeps=False)
    async with run_flows(definition):
        await until_suspended(database, asleep)
        await until_suspended(database, flow_id)
        await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {"yes": True}))
        assert await until_status(database, flow_id, "COMPLETED") == {"yes": True}
    assert (calls, await effects_of(database)) == (["clean"], ["clean"])


@pytest.mark.guarantee("G44")
async def test_flow_that_catches_its_suspension_still_waits(database: Database, run_flows: Runner) -> None:
    @flow("Test.Swallowed")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        answer = {}
        with suppress(BaseException):
            answer = await current.wait_for_resume("approval", timeout=HOUR)
        return answer

    flow_id = await started(database, definition)
    async with run_flows(definition) as signals:
        await until_suspended(database, flow_id)
        await signals.wait_for(TaskSignal.ENDED)
        await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {"yes": True}))
        assert await until_status(database, flow_id, "COMPLETED") == {"yes": True}


@pytest.mark.guarantee("G44")
async def test_step_after_the_runner_has_stopped_is_not_run(database: Database, run_flows: Runner) -> None:
    in_step = asyncio.Event()

    async def hang(_: AsyncSession) -> None:
        in_step.set()
        await asyncio.Event().wait()

    @flow("Test.Stopped")
    async def definition(current: Flow, arguments: dict[str, Any]) -> None:
        try:
            if arguments["in_step"]:
                await current.step("hang", hang)
            else:
                in_step.set()
                await asyncio.Event().wait()
        finally:
            await current.step("clean", lambda db: effect(db, "clean"))

    for where in (True, False):
        in_step.clear()
        flow_id = await started(database, definition, in_step=where)
        async with run_flows(definition, stop_grace_s=0.0):
            await in_step.wait()
        async with database.connection() as connection:
            assert await connection.fetch("SELECT FROM flow_steps WHERE task_id = $1", flow_id) == []
            await connection.fetch("UPDATE async_tasks SET status = 'CANCELLED' WHERE id = $1", flow_id)
