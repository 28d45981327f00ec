"""Jobs that the processes of an installation share, and their metrics."""

import asyncio
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from relaybox.db import Database, DatabaseUnavailable
from relaybox.periodic import ScheduleMetrics, SharedJob, run_if_due

from tests.fixtures.schedule_rows import schedule_row

HOUR_S = 3_600.0


class Action:
    """Count the runs, and fail with *error* if there is one."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.runs = 0

    async def __call__(self) -> None:
        self.runs += 1
        if self.error is not None:
            raise self.error


async def test_one_of_many_processes_runs_the_job_that_is_due(
    database: Database, superuser: asyncpg.Connection
) -> None:
    action = Action()
    for runs in (1, 2):
        due_in_s = await asyncio.gather(*(run_if_due(database, "job", HOUR_S, action) for _ in range(5)))
        assert action.runs == runs
        assert all(0 < one <= HOUR_S for one in due_in_s)
        await superuser.execute("UPDATE work_schedules SET last_tick_at = last_tick_at - interval '1 hour'")
    row = await schedule_row(database, "job")
    assert (row["interval_s"], row["last_outcome"], row["last_error"]) == (HOUR_S, "COMPLETED", None)


@pytest.mark.parametrize(
    ("error", "recorded"),
    [
        (DatabaseUnavailable("no server"), ("DATABASE_UNAVAILABLE", "no server")),
        (ValueError("private"), ("JOB_FAILED", "the job raised ValueError; see the log")),
    ],
)
async def test_error_of_a_run_is_recorded_until_one_succeeds(
    database: Database, superuser: asyncpg.Connection, error: Exception, recorded: tuple[str, str]
) -> None:
    with pytest.raises(type(error)):
        await run_if_due(database, "job", HOUR_S, Action(error))
    row = await schedule_row(database, "job")
    assert (row["last_error"]["error_code"], row["last_error"]["message"]) == recorded
    assert row["last_outcome"] == "FAILED"
    await superuser.execute("UPDATE work_schedules SET last_tick_at = last_tick_at - interval '1 hour'")
    await run_if_due(database, "job", HOUR_S, Action())
    row = await schedule_row(database, "job")
    assert (row["last_outcome"], row["last_error"]) == ("COMPLETED", None)


async def test_run_of_a_killed_process_does_not_hold_the_job_back(
    database: Database, superuser: asyncpg.Connection
) -> None:
    began, go_on = asyncio.Event(), asyncio.Event()

    async def never_ends() -> None:
        began.set()
        await go_on.wait()

    lost = asyncio.create_task(run_if_due(database, "job", HOUR_S, never_ends))
    await began.wait()
    lost.cancel()
    await asyncio.wait({lost})
    action = Action()
    await run_if_due(database, "job", HOUR_S, action)
    assert action.runs == 0
    await superuser.execute("UPDATE work_schedules SET last_tick_at = last_tick_at - interval '1 hour'")
    await run_if_due(database, "job", HOUR_S, action)
    assert action.runs == 1


async def test_start_in_the_future_of_a_former_primary_does_not_count(
    database: Database, superuser: asyncpg.Connection
) -> None:
    action = Action()
    for runs in (1, 2):
        await run_if_due(database, "job", HOUR_S, action)
        assert action.runs == runs
        await superuser.execute("UPDATE work_schedules SET last_tick_at = now() + interval '1 day'")


async def test_job_repeats_in_each_interval_and_observes_in_each_process(database: Database) -> None:
    action, observed = Action(), asyncio.Queue[None]()
    jobs = [
        SharedJob(action, name="job", interval_s=0.2, database=database, observe=lambda: observed.put(None))
        for _ in range(2)
    ]
    running = [asyncio.create_task(job.run()) for job in jobs]
    for _ in range(6):
        await observed.get()
    for job in jobs:
        job.stop()
    await asyncio.gather(*running)
    assert action.runs >= 2


async def test_metrics_show_overdue_and_failed_schedules(
    database: Database, superuser: asyncpg.Connection
) -> None:
    registry = CollectorRegistry()
    metrics = ScheduleMetrics(registry)

    async def measured(name: str, schedule: str) -> Any:
        async with database.connection() as connection:
            await metrics.measure(connection)
        return registry.get_sample_value(f"relaybox_schedule_{name}", {"schedule": schedule})

    await run_if_due(database, "good", HOUR_S, Action())
    with pytest.raises(ValueError, match="x"):
        await run_if_due(database, "bad", HOUR_S, Action(ValueError("x")))
    assert (await measured("failed", "good"), await measured("failed", "bad")) == (0, 1)
    assert await measured("overdue_seconds", "good") == 0
    assert await measured("last_duration_seconds", "good") > 0
    await superuser.execute("UPDATE work_schedules SET next_tick_at = now() - interval '90 s'")
    assert await measured("overdue_seconds", "good") >= 90
    await superuser.execute("DELETE FROM work_schedules WHERE name = 'bad'")
    assert await measured("failed", "bad") is None
