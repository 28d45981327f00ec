"""How many round trips to PostgreSQL a flow takes."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from pydantic_core import from_json
from relaybox.consumers import EventTransaction
from relaybox.db import Database
from relaybox.flows import Flow, flow, flow_subscription, flow_workers, park_flow, resume, start_flow
from relaybox.tasks import run_due_tasks
from relaybox_types.envelope import EventEnvelope, build_event_envelope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.statement_log import StatementLog

HOUR = timedelta(hours=1)
PAID = "Shop.Invoice.Paid"


async def effect(db: AsyncSession) -> None:
    await db.execute(text("SELECT 1"))


@flow("Test.Steps")
async def steps(current: Flow, arguments: dict[str, Any]) -> None:
    for number in range(arguments["steps"]):
        await current.step(str(number), effect)


@flow("Test.Waits", event_types=[PAID])
async def waits(current: Flow, _arguments: dict[str, Any]) -> None:
    await current.wait_for(PAID, str(current.id), timeout=HOUR)


@flow("Test.Resumes")
async def resumes(current: Flow, _arguments: dict[str, Any]) -> None:
    await current.wait_for_resume("approval", timeout=HOUR)


async def run(database: Database) -> None:
    """Claim one flow and run it."""
    await run_due_tasks(
        database,
        flow_workers(database, [steps, waits, resumes]),
        on_exhausted=lambda task: park_flow(database, task),
    )


async def count_of(database: Database, log: StatementLog, work: Any) -> int:
    """Return the number of statements of *work*."""
    await asyncio.sleep(0)
    before = len(log.statements)
    await work
    await asyncio.sleep(0)  # asyncpg calls its loggers later
    return len(log.statements) - before


async def start(database: Database, definition: Any, **arguments: Any) -> UUID:
    return await database.run_in_transaction(lambda db: start_flow(db, definition, arguments))


async def test_step_takes_four_round_trips(database: Database) -> None:
    log = StatementLog(database)
    await start(database, steps, steps=0)
    await run(database)  # the connection's first use of arrays reads their types
    await start(database, steps, steps=2)
    few = await count_of(database, log, run(database))
    await start(database, steps, steps=5)
    # BEGIN, the effect, the record, COMMIT.
    assert await count_of(database, log, run(database)) == few + 3 * 4
    # The claim, the recorded steps, the end.
    assert few == 3 + 2 * 4


async def test_resumed_flow_takes_no_round_trip_more(database: Database) -> None:
    log = StatementLog(database)
    flow_id = await start(database, resumes)
    await run(database)
    await database.run_in_transaction(lambda db: resume(db, f"{flow_id}/approval", {}))
    assert await count_of(database, log, run(database)) == 3


def payment(flow_id: UUID) -> EventEnvelope:
    return build_event_envelope(
        event_type=PAID,
        aggregate_type="Invoice",
        aggregate_id=str(flow_id),
        version=1,
        correlation_id=flow_id,
        payload={},
    )


async def test_events_that_resume_flows_share_six_round_trips(database: Database) -> None:
    log = StatementLog(database)
    flow_ids = [await start(database, waits) for _ in range(3)]
    for _ in flow_ids:
        await run(database)
    deliver = flow_subscription([waits]).joint_handler
    assert deliver is not None
    events = [payment(flow_id) for flow_id in (*flow_ids, flow_ids[0])]

    async def work(db: AsyncSession) -> None:
        await deliver([EventTransaction(db=db, event=event) for event in events])

    taken = await count_of(database, log, database.run_in_transaction(work))
    assert taken <= 2 + 4 + 2  # the connection's first use of arrays reads their types
    for _ in flow_ids:
        await run(database)
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT result::text FROM flow_steps ORDER BY task_id")
        [open_] = await connection.fetch("SELECT count(*) FROM async_tasks WHERE status <> 'COMPLETED'")
    # Of two events for one wait the flow gets the first.
    assert {UUID(from_json(row["result"])["value"]["event_id"]) for row in rows} == {
        event.event_id for event in events[:3]
    }
    assert open_["count"] == 0


async def test_event_that_resumes_a_flow_takes_six_round_trips(database: Database) -> None:
    log = StatementLog(database)
    flow_id = await start(database, waits)
    await run(database)
    event = payment(flow_id)
    deliver = flow_subscription([waits])
    taken = await count_of(
        database,
        log,
        database.run_in_transaction(lambda db: deliver(event, EventTransaction(db=db, event=event))),
    )
    # BEGIN and COMMIT; the event, the waits that it ends, the event of the pause, the task.
    assert taken == 2 + 4
    assert await count_of(database, log, run(database)) == 3
