"""Flows whose process is killed before each of its statements and commits."""

import asyncio
import signal
import sys
from typing import Any
from uuid import UUID, uuid4

import pytest
from relaybox.consumers import EventTransaction
from relaybox.db import Database
from relaybox.flows import flow_subscription, resume, start_flow
from relaybox.settings import PostgresSettings
from relaybox.tasks import fetch_task
from relaybox_types.envelope import build_event_envelope

from tests.fixtures.dying_flows import RESULT, end_leases, play, play_and_die
from tests.fixtures.flow_engine import PAID, status_of
from tests.fixtures.flow_process import killed, runner_of
from tests.fixtures.forked import exit_code_of as forked_exit_code_of
from tests.fixtures.processes import python_process, server_environment
from tests.fixtures.waiting import eventually

_STATEMENTS_MAX = 200


async def ready_flow(database: Database, number: int) -> UUID:
    """Start a flow whose event and resume have arrived already, so that it never waits; return its id."""
    flow_id = uuid4()
    paid = build_event_envelope(
        event_type=PAID,
        aggregate_type="Invoice",
        aggregate_id=str(flow_id),
        version=1,
        correlation_id=flow_id,
        payload={"cents": number},
    )
    deliver = flow_subscription([killed])
    await database.run_in_transaction(
        lambda db: start_flow(db, killed, {"key": str(flow_id)}, flow_id=flow_id)
    )
    await database.run_in_transaction(lambda db: deliver(paid, EventTransaction(db=db, event=paid)))
    await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {"yes": True}))
    return flow_id


async def exit_code_of(flow_id: UUID, number: int, environment: dict[str, str]) -> int:
    """Let a process run the flow and die before its statement *number*; return its exit code."""
    module = "tests.fixtures.flow_process"
    async with python_process(module, str(flow_id), str(number), environment=environment) as process:
        return await process.exit_code()


@pytest.mark.guarantee("G44")
async def test_flow_killed_at_any_statement_takes_effect_once(
    database: Database, postgres_settings: PostgresSettings, superuser: Any
) -> None:
    await superuser.execute("CREATE TABLE effects (name TEXT)")
    await superuser.execute("GRANT ALL ON effects TO PUBLIC")
    environment = server_environment(postgres_settings)
    for number in range(1, _STATEMENTS_MAX):
        flow_id = await ready_flow(database, number)
        code = await exit_code_of(flow_id, number, environment)
        assert code in (0, -signal.SIGKILL)
        await end_leases(database)
        result = await completed(database, flow_id)
        assert result == {"paid": {"cents": number}, "approval": {"yes": True}}
        effects = await superuser.fetchval("SELECT count(*) FROM effects WHERE name = $1", str(flow_id))
        assert effects == 2, number
        if code == 0:
            return
    raise AssertionError(f"the flow takes over {_STATEMENTS_MAX} statements")


async def completed(database: Database, flow_id: UUID) -> dict[str, Any]:
    """Let a runner of this process finish the flow, and return the flow's result."""
    runner = runner_of(database)
    running = asyncio.create_task(runner.run())

    async def result() -> dict[str, Any] | None:
        async with database.connection() as connection:
            task = await fetch_task(connection, flow_id)
        return task.result_data if task is not None and task.status == "COMPLETED" else None

    try:
        return await eventually("the flow is completed", result)
    finally:
        runner.stop()
        await running


@pytest.mark.guarantee("G44")
@pytest.mark.timeout(7_200)
@pytest.mark.parametrize("rounds", [1, pytest.param(50, marks=pytest.mark.long)])
async def test_transitions_killed_at_any_statement_happen_once(
    database: Database, postgres_settings: PostgresSettings, superuser: Any, rounds: int
) -> None:
    await superuser.execute("CREATE TABLE effects (name TEXT)")
    await superuser.execute("GRANT ALL ON effects TO PUBLIC")
    for kills in range(rounds):
        for number in range(1, _STATEMENTS_MAX):
            flow_id = uuid4()
            code = await asyncio.to_thread(
                forked_exit_code_of, play_and_die, postgres_settings, flow_id, number
            )
            assert code in (0, -signal.SIGKILL)
            await end_leases(database)
            await play(database, flow_id)
            await check_once(database, flow_id)
            if code == 0:
                sys.stdout.write(f"round {kills + 1}: killed at {number - 1} points\n")
                break
        else:
            raise AssertionError(f"the transitions take over {_STATEMENTS_MAX} statements")


async def check_once(database: Database, flow_id: UUID) -> None:
    """Check that each step of the flow took effect once, and that each of its pauses ended once."""
    assert await status_of(database, flow_id) == ("COMPLETED", RESULT)
    async with database.connection() as connection:
        [effects] = await connection.fetch(
            "SELECT count(*) AS number FROM effects WHERE name = $1", str(flow_id)
        )
        ends = await connection.fetch(
            "SELECT event_type FROM domain_events WHERE correlation_id = $1"
            " AND event_type ~ '(Resumed|Expired|Cancelled)$' ORDER BY created_at",
            flow_id,
        )
    assert effects["number"] == 2
    assert [row["event_type"].rpartition(".")[2] for row in ends] == [
        "Resumed",
        "Resumed",
        "Expired",
        "Cancelled",
    ]
