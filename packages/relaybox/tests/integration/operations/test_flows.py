"""Queries and actions of operators on flows and pauses."""

import asyncio
from uuid import UUID, uuid4

import pytest
from relaybox.db import Database
from relaybox.flows import FlowAlreadyResumed, fetch_handle, pause, resume
from relaybox.operations import (
    FlowAwaitsEvent,
    FlowSelection,
    SelectionEmpty,
    cancel_flow,
    list_flows,
    list_other_pauses,
    preview_resume,
    resume_flow,
    show_flow,
)
from relaybox.tasks import fetch_task
from relaybox_types.enums import HandleStatus, TaskStatus

from tests.fixtures.flow_runs import HOUR, PAID, fail_flow, order_flow, run_flows, sleep_flow, start
from tests.fixtures.outbox_rows import operator_acts


async def ids(database: Database, selection: FlowSelection, flows_max: int = 9) -> list[UUID]:
    async with database.connection() as connection:
        return [one.id for one in await list_flows(connection, selection, flows_max=flows_max)]


async def test_flows_are_selected_by_each_condition(database: Database) -> None:
    waits, sleeps = await start(database, order_flow), await start(database, sleep_flow)
    await run_flows(database)
    fresh = await start(database, order_flow)
    gone = await start(database, sleep_flow)
    await cancel_flow(database, gone, by="ann", reason="test")
    async with database.connection() as connection:
        await connection.execute("INSERT INTO async_tasks (task_type, input_data) VALUES ('no@flow', '{}')")
    for selection, wanted in (
        (FlowSelection(), [waits, sleeps, fresh]),
        (FlowSelection(names=("Test.Order",)), [waits, fresh]),
        (FlowSelection(names=("Test.Order@2", "Test.Sleep@2")), [waits, fresh]),
        (FlowSelection(names=("Test.Order@1",)), []),
        (FlowSelection(statuses=(TaskStatus.CANCELLED,)), [gone]),
        (FlowSelection(waiting=True), [waits, sleeps]),
    ):
        assert await ids(database, selection) == wanted
    assert await ids(database, FlowSelection(), flows_max=2) == [waits, sleeps]


async def test_listed_flow_has_its_wait_and_steps(database: Database) -> None:
    waits, sleeps = await start(database, order_flow), await start(database, sleep_flow)
    await run_flows(database)
    async with database.connection() as connection:
        order, sleep = await list_flows(connection, FlowSelection(), flows_max=9)
        handle = await fetch_handle(connection, f"{waits}/approval")
    assert handle is not None
    assert (order.name, order.version, order.steps) == ("Test.Order", 2, 1)
    assert (order.correlation_id, order.waits_until) == (handle.correlation_id, handle.expires_at)
    assert (sleep.id, sleep.correlation_id) == (sleeps, None)
    assert sleep.waits_until is not None


async def test_pauses_of_other_engines_are_listed_by_expiry(database: Database) -> None:
    await start(database, order_flow)
    await run_flows(database)
    for name, hours in (("late", 2), ("soon", 1)):
        await database.run_in_transaction(
            lambda db, name=name, hours=hours: pause(
                db, name, resume_handle={"run": 1}, expires_in=hours * HOUR
            )
        )
    await database.run_in_transaction(lambda db: resume(db, "early", {}))
    async with database.connection() as connection:
        found = await list_other_pauses(connection, pauses_max=9)
        assert [(one.correlation_id, one.registered) for one in found] == [
            ("soon", True),
            ("late", True),
            ("early", False),
        ]
        assert len(await list_other_pauses(connection, pauses_max=1)) == 1


async def test_flow_is_shown_without_results_unless_requested(database: Database) -> None:
    flow_id = await start(database, order_flow, secret="秘密")
    await run_flows(database)
    await resume_flow(database, f"{flow_id}/approval", {"who": "秘密"}, by="ann", reason="checked")
    await run_flows(database)
    async with database.connection() as connection:
        shown = await show_flow(connection, flow_id)
        whole = await show_flow(connection, flow_id, with_payload=True)
        with pytest.raises(SelectionEmpty, match="there is no flow"):
            await show_flow(connection, uuid4())
    assert [step.name for step in shown.steps] == ["reserve", "approval", "charge"]
    assert {step.result for step in shown.steps} == {None}
    assert (shown.input_data, shown.flow.correlation_id) == (None, f"{flow_id}/payment")
    assert [(one.status, one.event_type, one.key) for one in shown.pauses] == [
        ("RESUMED", None, None),
        ("PAUSED", PAID, "i-1"),
    ]
    assert [(act["by"], act["act"], act["reason"]) for act in shown.acts] == [("ann", "resume", "checked")]
    assert [step.result["value"] for step in whole.steps] == ["秘密", {"who": "秘密"}, "charged"]
    assert whole.input_data["arguments"] == {"secret": "秘密"}


async def test_failed_flow_is_listed_with_its_error(database: Database) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    await fail_flow(database, flow_id)
    async with database.connection() as connection:
        [found] = await list_flows(connection, FlowSelection(), flows_max=9)
    assert (found.status, found.error_code, found.steps) == ("FAILED", "FLOW_STEP_FAILED", 2)
    with pytest.raises(SelectionEmpty, match="is FAILED; only a PENDING or RUNNING flow"):
        await cancel_flow(database, flow_id, by="ann", reason="test")


@pytest.mark.guarantee("G44")
async def test_resume_by_an_operator_takes_effect_once(database: Database) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    place = f"{flow_id}/approval"
    results = await asyncio.gather(
        *(resume_flow(database, place, {"number": n}, by="ann") for n in range(8)), return_exceptions=True
    )
    assert sum(not isinstance(one, Exception) for one in results) == 1
    assert sum(isinstance(one, FlowAlreadyResumed) for one in results) == 7
    assert [act["act"] for act in await operator_acts(database)] == ["resume"]


async def test_resume_without_a_pause_is_kept_and_recorded(database: Database) -> None:
    async with database.connection() as connection:
        assert await preview_resume(connection, "nothing") is None
    handle = await resume_flow(database, "nothing", {"secret": "秘密"}, by="ann")
    assert (handle.status, handle.registered) == (HandleStatus.PENDING_PAUSE, False)
    [act] = await operator_acts(database)
    assert "秘密" not in str(act["target"])
    async with database.connection() as connection:
        with pytest.raises(SelectionEmpty, match="is PENDING_PAUSE and has a resume already"):
            await preview_resume(connection, "nothing")


@pytest.mark.guarantee("G44")
async def test_wait_for_an_event_is_not_resumed_by_an_operator(database: Database) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    await resume_flow(database, f"{flow_id}/approval", {}, by="ann")
    await run_flows(database)
    async with database.connection() as connection:
        with pytest.raises(SelectionEmpty, match="is RESUMED; `relaybox flow list`"):
            await preview_resume(connection, f"{flow_id}/approval")
    with pytest.raises(FlowAwaitsEvent, match=f"{PAID} of 'i-1'"):
        await resume_flow(database, f"{flow_id}/payment", {}, by="ann")
    async with database.connection() as connection:
        with pytest.raises(FlowAwaitsEvent):
            await preview_resume(connection, f"{flow_id}/payment")
        [found] = await list_flows(connection, FlowSelection(waiting=True), flows_max=9)
    assert found.correlation_id == f"{flow_id}/payment"


@pytest.mark.guarantee("G44")
async def test_cancel_ends_the_flow_and_its_pause(database: Database) -> None:
    flow_id = await start(database, order_flow)
    await run_flows(database)
    done = await cancel_flow(database, flow_id, by="ann", reason="customer left")
    assert done.correlation_id == f"{flow_id}/approval"
    async with database.connection() as connection:
        handle = await fetch_handle(connection, f"{flow_id}/approval")
        task = await fetch_task(connection, flow_id)
    assert handle is not None
    assert task is not None
    assert (handle.status, handle.cancelled, task.status) == ("EXPIRED", True, "CANCELLED")
    assert [(act["act"], act["reason"]) for act in await operator_acts(database)] == [
        ("cancel", "customer left")
    ]
    with pytest.raises(SelectionEmpty, match="is CANCELLED"):
        await cancel_flow(database, flow_id, by="ann", reason="again")


@pytest.mark.guarantee("G44")
async def test_cancel_beside_resumes_leaves_no_waiting_pause(database: Database) -> None:
    for _ in range(20):
        flow_id = await start(database, order_flow)
        await run_flows(database)
        place = f"{flow_id}/approval"
        cancelled, resumed = await asyncio.gather(
            cancel_flow(database, flow_id, by="ann", reason="test"),
            resume_flow(database, place, {}, by="ann"),
            return_exceptions=True,
        )
        assert not isinstance(cancelled, BaseException)
        assert (cancelled.correlation_id is None) == (not isinstance(resumed, BaseException))
        async with database.connection() as connection:
            task, handle = await fetch_task(connection, flow_id), await fetch_handle(connection, place)
        assert task is not None
        assert handle is not None
        assert (task.status, handle.cancelled) == ("CANCELLED", isinstance(resumed, BaseException))
