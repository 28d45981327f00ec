"""Documents of flows: what cannot be stored is refused by name, and a result is the same in each run."""

from typing import Any

import pytest
from relaybox.db import Database
from relaybox.flows import (
    Flow,
    FlowDocumentInvalid,
    confirm_paused,
    fetch_handle,
    flow,
    flow_workers,
    pause,
    resume,
    start_flow,
)
from relaybox.tasks import run_due_tasks
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.flow_engine import HOUR, Runner, started, until_status, until_suspended


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


INVALID = {
    "nan": float("nan"),
    "infinity": float("inf"),
    "surrogate": "\ud800",
    "nul": "a\0b",
    "long number": 10**5_000,
    "deep": nested(181),
    "deeper": nested(5_000),
    "object": object(),
    "large": "x" * 1_048_576,
}
each_invalid = pytest.mark.parametrize("value", [pytest.param(one, id=name) for name, one in INVALID.items()])


@each_invalid
async def test_pause_and_resume_refuse_what_cannot_be_stored(database: Database, value: Any) -> None:
    with pytest.raises(FlowDocumentInvalid, match="resume_handle"):
        await database.run_in_transaction(
            lambda db: pause(db, "flow", resume_handle={"value": value}, expires_in=HOUR)
        )
    with pytest.raises(FlowDocumentInvalid, match="payload"):
        await database.run_in_transaction(lambda db: resume(db, "flow", {"value": value}))


@flow("Test.Value")
async def gives_back(_current: Flow, arguments: dict[str, Any]) -> dict[str, Any]:
    return arguments


@each_invalid
async def test_flow_refuses_arguments_that_cannot_be_stored(database: Database, value: Any) -> None:
    with pytest.raises(FlowDocumentInvalid, match="the arguments of the flow"):
        await database.run_in_transaction(lambda db: start_flow(db, gives_back, {"value": value}))


@each_invalid
@pytest.mark.parametrize("of_step", [True, False])
async def test_flow_refuses_a_result_that_cannot_be_stored(
    database: Database, value: Any, of_step: bool
) -> None:
    async def give(_: AsyncSession) -> Any:
        return value

    @flow("Test.Result")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        if of_step:
            await current.step("give", give)
        return {"value": value}

    await started(database, definition)
    [run] = await run_due_tasks(database, flow_workers(database, [definition]), on_exhausted=_never)
    assert isinstance(run.failure, FlowDocumentInvalid)
    assert ("the result of step 'give'" if of_step else "the result of Test.Result@1") in str(run.failure)


async def _never(_: Any) -> None:
    raise AssertionError("no task is exhausted")


async def test_deepest_payload_is_delivered(database: Database) -> None:
    payload = {"value": nested(179)}
    await database.run_in_transaction(lambda db: pause(db, "flow", resume_handle={}, expires_in=HOUR))
    await database.run_in_transaction(lambda db: confirm_paused(db, "flow"))
    await database.run_in_transaction(lambda db: resume(db, "flow", payload))
    async with database.connection() as connection:
        handle = await fetch_handle(connection, "flow")
    assert handle is not None
    assert handle.resume_payload == payload


async def test_result_of_a_step_is_the_same_in_each_run(database: Database, run_flows: Runner) -> None:
    seen: list[str] = []

    async def give(_: AsyncSession) -> Any:
        return {"longer": 1e300, "b": 1, 2: [1.0, -0.0]}

    @flow("Test.Same")
    async def definition(current: Flow, _arguments: dict[str, Any]) -> None:
        seen.append(repr(await current.step("give", give)))
        await current.wait_for_resume("go", timeout=HOUR)

    flow_id = await started(database, definition)
    async with run_flows(definition):
        await until_suspended(database, flow_id)
        await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/go", {}))
        await until_status(database, flow_id, "COMPLETED")
    assert seen[0] == seen[1]


@pytest.mark.parametrize("task_id", ["a", 5, None, ["x"]])
async def test_malformed_task_id_of_a_pause_is_refused(database: Database, task_id: Any) -> None:
    with pytest.raises(FlowDocumentInvalid, match="task_id"):
        await database.run_in_transaction(
            lambda db: pause(db, "flow", resume_handle={"task_id": task_id}, expires_in=HOUR)
        )
