"""Waits of flows for events: each event ends one wait, and nothing else does."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from relaybox.db import Database
from relaybox.flows import (
    Flow,
    FlowCancelled,
    FlowExpired,
    FlowInvalid,
    cancel,
    expire_handles,
    fetch_handle,
    flow,
    resume,
    start_flow,
)
from relaybox_types.enums import HandleStatus
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.flow_engine import (
    HOUR,
    PAID,
    Runner,
    deliver,
    effect,
    error_of,
    pass_time,
    started,
    until_status,
    until_suspended,
)
from tests.fixtures.waiting import eventually


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


@pytest.mark.guarantee("G44")
async def test_flow_gets_an_event_that_arrived_before_its_start(
    database: Database, run_flows: Runner
) -> None:
    """The consumer that records events may be ahead of the one that starts the flow."""
    await deliver(database, gives_up, "a", 1)
    async with database.connection() as connection:
        [row] = await connection.fetch("SELECT clock_timestamp() AS now")
    event_id = await deliver(database, gives_up, "a", 2)

    async def start(db: AsyncSession) -> UUID:
        return await start_flow(db, gives_up, {"key": "a"}, events_since=row["now"])

    flow_id = await database.run_in_transaction(start)
    async with run_flows(gives_up):
        result = await until_status(database, flow_id, "COMPLETED")
    assert result == {"number": 2, "event_id": str(event_id)}


async def test_flow_gets_later_events_if_their_clock_is_ahead(database: Database, run_flows: Runner) -> None:
    flow_id = await database.run_in_transaction(
        lambda db: start_flow(db, gives_up, {"key": "a"}, events_since=datetime.now(UTC) + HOUR)
    )
    await deliver(database, gives_up, "a", 7)
    async with run_flows(gives_up):
        result = await until_status(database, flow_id, "COMPLETED")
    assert result is not None
    assert result["number"] == 7


async def test_events_since_without_a_time_zone_is_refused(database: Database) -> None:
    with pytest.raises(FlowInvalid, match="has no time zone"):
        await database.run_in_transaction(
            lambda db: start_flow(db, gives_up, {"key": "a"}, events_since=datetime(2026, 1, 1))  # noqa: DTZ001
        )


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("early", [True, False])
async def test_resume_without_the_event_does_not_end_a_wait_for_it(
    database: Database, run_flows: Runner, early: bool
) -> None:
    flow_id = await started(database, gives_up, key="a")
    place = f"{flow_id}/{PAID}/a"
    if early:
        await database.run_in_transaction(lambda db: resume(db, place, {}))

    async def pause_id() -> UUID | None:
        async with database.connection() as connection:
            handle = await fetch_handle(connection, place)
        return handle.id if handle is not None and handle.status is HandleStatus.PAUSED else None

    async with run_flows(gives_up):
        until = await until_suspended(database, flow_id)
        if not early:
            await database.run_in_transaction(lambda db: resume(db, place, {}))
            await eventually("the flow waits again", pause_id)
            assert abs(await until_suspended(database, flow_id) - until) < timedelta(minutes=1)
        event_id = await deliver(database, gives_up, "a", 7)
        assert await until_status(database, flow_id, "COMPLETED") == {"number": 7, "event_id": str(event_id)}


@pytest.mark.guarantee("G44")
async def test_flow_gets_the_event_beside_a_kept_resume(database: Database, run_flows: Runner) -> None:
    flow_id = await started(database, gives_up, key="a")
    await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/{PAID}/a", {}))
    event_id = await deliver(database, gives_up, "a", 7)
    async with run_flows(gives_up):
        assert await until_status(database, flow_id, "COMPLETED") == {"number": 7, "event_id": str(event_id)}


@flow("Test.Again", event_types=[PAID])
async def tries_again(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
    try:
        await current.wait_for(PAID, "a", timeout=HOUR, name="first")
    except (FlowExpired, FlowCancelled) as error:
        event = await current.wait_for(PAID, "a", timeout=HOUR, name="second")
        return {"error_code": error.error_code, "number": event.payload["number"]}
    return {}


@pytest.mark.guarantee("G44")
@pytest.mark.parametrize("error_code", ["FLOW_EXPIRED", "FLOW_CANCELLED"])
async def test_event_after_the_end_of_a_wait_ends_the_next(
    database: Database, run_flows: Runner, error_code: str
) -> None:
    flow_id = await started(database, tries_again)
    async with run_flows(tries_again):
        await until_suspended(database, flow_id)
    if error_code == "FLOW_EXPIRED":
        await pass_time(database, flow_id)
        assert len(await database.run_in_transaction(expire_handles)) == 1
    else:
        await database.run_in_transaction(lambda db: cancel(db, f"{flow_id}/first"))
    await deliver(database, tries_again, "a", 7)
    async with run_flows(tries_again):
        result = await until_status(database, flow_id, "COMPLETED")
    assert result == {"error_code": error_code, "number": 7}


async def test_wait_for_an_undeclared_event_type_is_refused(database: Database, run_flows: Runner) -> None:
    @flow("Test.Undeclared", event_types=["Shop.Parcel.Returned"])
    async def definition(current: Flow, _arguments: dict[str, Any]) -> None:
        await current.wait_for(PAID, "a", timeout=HOUR)

    flow_id = await started(database, definition)
    async with run_flows(definition, attempts_max=1):
        await until_status(database, flow_id, "FAILED")
    error = await error_of(database, flow_id)
    assert PAID in error["message"]
    assert "FLOW_INVALID" in error["message"]


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
