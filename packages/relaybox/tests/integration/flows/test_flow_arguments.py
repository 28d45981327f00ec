"""Names, keys and times of flows: unusable ones are refused by name; a time that is over ends the wait."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from relaybox.db import Database
from relaybox.flows import (
    EngineRun,
    Flow,
    FlowDocumentInvalid,
    FlowExpired,
    FlowInvalid,
    flow,
    flow_workers,
    pause,
    pause_run,
    resume,
)
from relaybox.tasks import run_due_tasks

from tests.fixtures.flow_engine import HOUR, PAID, started, status_of

CENTURIES = timedelta(days=40_000)
TEXTS = {"empty": "", "nul": "a\0b", "surrogate": "a\udc00", "long": "x" * 256}
each_text = pytest.mark.parametrize("text", [pytest.param(one, id=name) for name, one in TEXTS.items()])
Call = Callable[[Flow], Awaitable[Any]]


async def failure_of(database: Database, call: Call) -> Exception | None:
    """Run a flow that makes *call*; return the error of its attempt."""

    @flow("Test.Call", event_types=[PAID])
    async def definition(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        try:
            await call(current)
        except FlowExpired as error:
            return {"ended": error.error_code}
        return {"ended": "in time"}

    flow_id = await started(database, definition)
    [run] = await run_due_tasks(database, flow_workers(database, [definition]), on_exhausted=_never)
    if run.failure is None:
        assert await status_of(database, flow_id) == ("COMPLETED", {"ended": "FLOW_EXPIRED"})
    return run.failure


async def _never(_: Any) -> None:
    raise AssertionError("no task is exhausted")


async def _nothing(_: Any) -> None:
    return None


@each_text
def test_flow_with_an_unusable_name_is_refused(text: str) -> None:
    with pytest.raises(FlowInvalid, match="the name of a flow must have 1 to 120 characters"):
        flow(text)


@pytest.mark.parametrize("version", [0, 1_000_000_000])
def test_flow_with_a_version_out_of_range_is_refused(version: int) -> None:
    with pytest.raises(FlowInvalid, match="a version of 1 to 999,999,999"):
        flow("Test.Call", version=version)


def test_two_flows_with_one_name_and_version_are_refused(database: Database) -> None:
    async def function(_current: Flow, _arguments: dict[str, Any]) -> None:
        raise AssertionError

    with pytest.raises(FlowInvalid, match=r"two flows have the name and version Test\.Call@1"):
        flow_workers(database, [flow("Test.Call")(function), flow("Test.Call")(function)])


@each_text
async def test_step_with_an_unusable_name_is_refused(database: Database, text: str) -> None:
    failure = await failure_of(database, lambda current: current.step(text, _nothing))
    assert isinstance(failure, FlowInvalid)
    assert "the name of a step of Test.Call@1 must have 1 to 120 characters" in str(failure)


@each_text
async def test_wait_for_an_unusable_key_is_refused(database: Database, text: str) -> None:
    failure = await failure_of(
        database, lambda current: current.wait_for(PAID, text, timeout=HOUR, name="paid")
    )
    assert isinstance(failure, FlowInvalid)
    assert f"the key of a wait for {PAID} must have 1 to 255 characters" in str(failure)


@each_text
async def test_resume_of_an_unusable_correlation_id_is_refused(database: Database, text: str) -> None:
    with pytest.raises(FlowDocumentInvalid, match="a correlation id must have 1 to 200 characters"):
        await database.run_in_transaction(lambda db: resume(db, text, {}))


@each_text
async def test_pause_of_an_unusable_correlation_id_is_refused(database: Database, text: str) -> None:
    run = EngineRun(engine="list", run_id="1", correlation_id=text)
    with pytest.raises(FlowDocumentInvalid, match="a correlation id must have 1 to 200 characters"):
        await database.run_in_transaction(lambda db: pause_run(db, run, expires_in=HOUR))


async def test_longest_key_of_four_byte_characters_is_stored(database: Database) -> None:
    call: Call = lambda current: current.wait_for(  # noqa: E731
        PAID, "\U0001f4b6" * 255, timeout=timedelta(), name="paid"
    )
    assert await failure_of(database, call) is None


WAITS: dict[str, Callable[[Flow, timedelta], Awaitable[Any]]] = {
    "resume": lambda current, timeout: current.wait_for_resume("wait", timeout=timeout),
    "event": lambda current, timeout: current.wait_for(PAID, "key", timeout=timeout, name="wait"),
}
each_wait = pytest.mark.parametrize("wait", [pytest.param(one, id=name) for name, one in WAITS.items()])


@each_wait
@pytest.mark.parametrize("limit", [timedelta(), timedelta(days=-1), timedelta.min])
async def test_wait_whose_time_is_over_expires_at_once(
    database: Database, wait: Any, limit: timedelta
) -> None:
    assert await failure_of(database, lambda current: wait(current, limit)) is None


@each_wait
@pytest.mark.parametrize("limit", [CENTURIES, timedelta.max])
async def test_wait_of_over_100_years_is_refused(database: Database, wait: Any, limit: timedelta) -> None:
    failure = await failure_of(database, lambda current: wait(current, limit))
    assert isinstance(failure, FlowInvalid)
    assert "the timeout of 'wait' is " in str(failure)


@pytest.mark.parametrize("time", [datetime.now(UTC) + CENTURIES, datetime.max.replace(tzinfo=UTC)])
async def test_sleep_of_over_100_years_is_refused(database: Database, time: datetime) -> None:
    failure = await failure_of(database, lambda current: current.sleep_until("nap", time))
    assert isinstance(failure, FlowInvalid)
    assert "the time of 'nap' is " in str(failure)


@pytest.mark.parametrize("expires_in", [CENTURIES, timedelta.max])
async def test_pause_of_over_100_years_is_refused(database: Database, expires_in: timedelta) -> None:
    run = EngineRun(engine="list", run_id="1", correlation_id=f"{uuid4()}/wait")
    with pytest.raises(FlowInvalid, match="expires_in is "):
        await database.run_in_transaction(
            lambda db: pause(db, run.correlation_id, resume_handle={}, expires_in=expires_in)
        )
    with pytest.raises(FlowInvalid, match="expires_in is "):
        await database.run_in_transaction(lambda db: pause_run(db, run, expires_in=expires_in))
