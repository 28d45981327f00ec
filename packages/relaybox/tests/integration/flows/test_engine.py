"""Flows on tasks: steps take effect once, waits hold nothing, and each ends once."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from relaybox.consumers import EventTransaction
from relaybox.db import Database, executor_of
from relaybox.events import fetch_chain
from relaybox.flows import (
    Flow,
    FlowDefinition,
    FlowExpired,
    FlowInvalid,
    cancel,
    expire_handles,
    flow,
    flow_subscription,
    flow_workers,
    park_flow,
    resume,
    start_flow,
)
from relaybox.settings import TaskSettings
from relaybox.tasks import TaskRunner, TaskSignal, cancel_task, fetch_task
from relaybox_types.envelope import build_event_envelope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

HOUR = timedelta(hours=1)
PAID = "Shop.Invoice.Paid"
Runner = Callable[..., AbstractAsyncContextManager[SignalRecorder]]


@pytest.fixture
async def effects(database: Database, superuser: Any) -> None:
    await superuser.execute("CREATE TABLE effects (name TEXT)")
    await superuser.execute("GRANT ALL ON effects TO PUBLIC")


async def effect(db: AsyncSession, name: str) -> str:
    await db.execute(text("INSERT INTO effects VALUES (:name)"), {"name": name})
    return name.upper()


async def effects_of(database: Database) -> list[str]:
    async with database.connection() as connection:
        return [row["name"] for row in await connection.fetch("SELECT name FROM effects ORDER BY ctid")]


@pytest.fixture
def run_flows(database: Database) -> Runner:
    """``async with run_flows(definition) as signals``: run flows in a task runner."""

    @asynccontextmanager
    async def run(*definitions: FlowDefinition, **settings: Any) -> AsyncIterator[SignalRecorder]:
        signals = SignalRecorder()
        runner = TaskRunner(
            database,
            flow_workers(database, definitions),
            on_exhausted=lambda task: park_flow(database, task),
            settings=TaskSettings(**{"poll_s": 0.05, "stop_grace_s": 5.0, **settings}),
            on_signal=signals,
        )
        running = asyncio.create_task(runner.run())
        try:
            yield signals
        finally:
            runner.stop()
            await running

    return run


async def started(database: Database, definition: FlowDefinition, **arguments: Any) -> UUID:
    return await database.run_in_transaction(lambda db: start_flow(db, definition, arguments))


async def status_of(database: Database, flow_id: UUID) -> tuple[str, dict[str, Any] | None]:
    async with database.connection() as connection:
        task = await fetch_task(connection, flow_id)
    assert task is not None
    return task.status, task.result_data


async def until_status(database: Database, flow_id: UUID, wanted: str) -> dict[str, Any] | None:
    async def reached() -> bool:
        return (await status_of(database, flow_id))[0] == wanted

    await eventually(f"flow is {wanted}", reached)
    return (await status_of(database, flow_id))[1]


async def until_suspended(database: Database, flow_id: UUID) -> datetime:
    async def suspended_until() -> datetime | None:
        async with database.connection() as connection:
            task = await fetch_task(connection, flow_id)
        assert task is not None
        return task.not_before if task.status == "PENDING" else None

    return await eventually("flow is suspended", suspended_until)


async def deliver(database: Database, definition: FlowDefinition, key: str, number: int = 0) -> UUID:
    """Give an event to the flows, as the consumer does; return its id."""
    event = build_event_envelope(
        event_type=PAID,
        aggregate_type="Invoice",
        aggregate_id=key,
        version=1,
        correlation_id=uuid4(),
        payload={"number": number},
    )
    subscription = flow_subscription([definition])
    await database.run_in_transaction(
        lambda db: subscription(event, EventTransaction(db=db, event=event)), attempts_max=100
    )
    return event.event_id


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


async def pass_time(database: Database, flow_id: UUID) -> None:
    async with database.connection() as connection:
        await connection.fetch(
            "UPDATE flow_resume_handles SET expires_at = now() - interval '1 s' WHERE correlation_id LIKE $1",
            f"{flow_id}/%",
        )


@flow("Test.Timeout", event_types=[PAID])
async def gives_up(current: Flow, arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        event = await current.wait_for(PAID, arguments["key"], timeout=HOUR)
    except FlowExpired:
        return {"expired": await current.step("remind", lambda db: effect(db, "remind"))}
    return {"number": event.payload["number"], "event_id": str(event.event_id)}


@pytest.mark.usefixtures("effects")
async def test_flow_goes_on_when_its_wait_expires(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, gives_up, key="a")
    async with run_flows(gives_up):
        await until_suspended(database, flow_id)
        await pass_time(database, flow_id)
        assert len(await database.run_in_transaction(expire_handles)) == 1
        assert await until_status(database, flow_id, "COMPLETED") == {"expired": "REMIND"}


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("early", [True, False])
async def test_flow_goes_on_with_the_event(database: Database, run_flows: Runner, early: bool) -> None:
    flow_id = await started(database, gives_up, key="a")
    event_id = await deliver(database, gives_up, "a", 7) if early else None
    async with run_flows(gives_up):
        if not early:
            await until_suspended(database, flow_id)
            await deliver(database, gives_up, "b", 6)
            event_id = await deliver(database, gives_up, "a", 7)
        result = await until_status(database, flow_id, "COMPLETED")
    assert result == {"number": 7, "event_id": str(event_id)}


async def test_event_from_before_the_flow_does_not_count(database: Database, run_flows: Runner) -> None:
    await deliver(database, gives_up, "a", 1)
    flow_id = await started(database, gives_up, key="a")
    async with run_flows(gives_up):
        await until_suspended(database, flow_id)


@flow("Test.Twice", event_types=[PAID])
async def twice(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
    first = await current.wait_for(PAID, "a", timeout=HOUR, name="first")
    second = await current.wait_for(PAID, "a", timeout=HOUR, name="second")
    return {"numbers": [first.payload["number"], second.payload["number"]]}


async def test_each_event_ends_one_wait_of_a_flow(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, twice)
    await deliver(database, twice, "a", 1)
    async with run_flows(twice):
        await until_suspended(database, flow_id)
        await deliver(database, twice, "a", 2)
        assert await until_status(database, flow_id, "COMPLETED") == {"numbers": [1, 2]}


@pytest.mark.guarantee("G44")
async def test_event_beside_the_begin_of_a_wait_is_never_missed(
    database: Database, run_flows: Runner
) -> None:
    flows = {f"key-{number}": await started(database, gives_up, key=f"key-{number}") for number in range(40)}
    async with run_flows(gives_up, concurrency=8):
        await asyncio.gather(*(deliver(database, gives_up, key) for key in flows))
        await asyncio.gather(*(until_status(database, one, "COMPLETED") for one in flows.values()))


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
