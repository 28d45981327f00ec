"""A runner creates the tasks of ticks and runs them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from relaybox.db import Database
from relaybox.local import LocalPostgres
from relaybox.schedules import (
    MissedTicks,
    RecurringTask,
    RecurringTaskRunner,
    ScheduleInvalid,
    Tick,
    recurring_task,
)
from relaybox.settings import TaskSettings
from relaybox.tasks import TaskSignal
from sqlalchemy.ext.asyncio import AsyncSession
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.outages import stopped
from tests.fixtures.schedule_rows import (
    NAME,
    every_minute,
    minutes_from,
    record_tick,
    recorded_ticks,
    schedule_row,
)
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

Declare = Callable[..., Awaitable[None]]
Run = Callable[..., AbstractAsyncContextManager[SignalRecorder]]


@pytest.fixture
def run_tasks(database: Database, ticks_table: None) -> Run:
    """``async with run_tasks(task) as signals``: run recurring tasks."""

    @asynccontextmanager
    async def run(*tasks: RecurringTask, **settings: Any) -> AsyncIterator[SignalRecorder]:
        signals = SignalRecorder()
        runner = RecurringTaskRunner(
            database, tasks, settings=TaskSettings(**{"poll_s": 0.05, **settings}), on_signal=signals
        )
        running = asyncio.create_task(runner.run())
        try:
            yield signals
        finally:
            runner.stop()
            await asyncio.wait_for(running, WAIT_S)

    return run


def an_hour_ago() -> datetime:
    return datetime.now(UTC) - timedelta(hours=1)


async def test_runner_runs_each_missed_tick_in_order(
    database: Database, declare: Declare, run_tasks: Run
) -> None:
    task, start = every_minute(missed=MissedTicks.EACH), an_hour_ago()
    await declare(task, at=start)
    async with run_tasks(task) as signals:
        await signals.wait_for(TaskSignal.ENDED, 60)
    assert (await recorded_ticks(database))[:60] == minutes_from(start, 60)


async def test_runner_declares_and_runs_a_task_each_second(database: Database, run_tasks: Run) -> None:
    async with run_tasks(every_minute(cron="* * * * * *")) as signals:
        await signals.wait_for(TaskSignal.ENDED, 2)
    ticks = await recorded_ticks(database)
    assert len(set(ticks)) == len(ticks) >= 2
    assert (await schedule_row(database))["last_outcome"] == "COMPLETED"


async def test_function_gets_the_tick_in_the_zone_of_its_schedule(
    database: Database, declare: Declare, run_tasks: Run
) -> None:
    found: list[Tick] = []

    @recurring_task("Test.Zone", cron="* * * * *", timezone="Asia/Kolkata")
    async def report(tick: Tick, _db: AsyncSession) -> None:
        found.append(tick)

    await declare(report, at=an_hour_ago())
    async with run_tasks(report) as signals:
        await signals.wait_for(TaskSignal.ENDED)
    [tick] = found
    assert (tick.name, tick.previous_at, tick.at.tzname()) == ("Test.Zone", None, "IST")
    assert tick.id == (await schedule_row(database, "Test.Zone"))["last_task_id"]


async def test_function_is_called_once_although_its_lease_is_renewed(
    database: Database, declare: Declare, run_tasks: Run
) -> None:
    calls: list[Tick] = []

    @recurring_task(NAME, cron="* * * * *")
    async def slow(tick: Tick, db: AsyncSession) -> None:
        calls.append(tick)
        await record_tick(tick, db)
        await signals.wait_for_next(TaskSignal.RENEWED)

    await declare(slow, at=an_hour_ago())
    async with run_tasks(slow, lease_s=2.0) as signals:
        await signals.wait_for(TaskSignal.ENDED)
    assert len(calls) == len(await recorded_ticks(database)) == 1


async def test_function_that_fails_on_every_attempt_fails_its_tick_only(
    database: Database, declare: Declare, run_tasks: Run
) -> None:
    @recurring_task(NAME, cron="* * * * *", missed=MissedTicks.EACH)
    async def fail_first(tick: Tick, db: AsyncSession) -> None:
        await record_tick(tick, db)
        if tick.previous_at is None:
            raise ValueError("private")

    start = an_hour_ago()
    await declare(fail_first, at=start)
    async with run_tasks(fail_first, attempts_max=1):

        async def third_tick() -> bool:
            return len(await recorded_ticks(database)) > 1

        await eventually("the second and third tick are recorded", third_tick)
    assert (await recorded_ticks(database))[:2] == minutes_from(start, 3)[1:]
    async with database.connection() as connection:
        [row] = await connection.fetch(
            "SELECT status::text, error_data ->> 'message' AS message FROM async_tasks "
            "ORDER BY input_data ->> 'tick_at' LIMIT 1"
        )
    assert tuple(row.values()) == ("FAILED", "the worker raised ValueError")


async def test_runner_continues_after_an_outage_of_postgresql(
    database: Database, declare: Declare, run_tasks: Run, postgres_server: LocalPostgres
) -> None:
    task = every_minute()

    async def complaint() -> bool:
        return any(one.get("job") == "create tasks of ticks" for one in logs)

    with capture_logs() as logs:
        async with stopped(postgres_server), run_tasks(task):
            await eventually("a complaint", complaint)
    await declare(task, at=an_hour_ago())
    async with run_tasks(task) as signals:
        await signals.wait_for(TaskSignal.ENDED)


def test_two_tasks_of_one_name_are_refused(database: Database) -> None:
    with pytest.raises(ScheduleInvalid, match=f"two recurring tasks have the name '{NAME}'"):
        RecurringTaskRunner(database, [every_minute(), every_minute()])
    assert repr(RecurringTaskRunner(database, [every_minute()])) == f"<RecurringTaskRunner {NAME}>"
