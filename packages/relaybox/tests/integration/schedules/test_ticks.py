"""Ticks create one task each; missed ticks, overlap, and changed declarations."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.schedules import MissedTicks, RecurringTask
from structlog.testing import capture_logs

from tests.fixtures.schedule_rows import NAME, every_minute, minutes_from, schedule_row

Declare = Callable[..., Awaitable[None]]
CreateTasks = Callable[..., Awaitable[int]]
NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


async def tasks(database: Database, name: str = NAME) -> list[tuple[datetime, datetime | None]]:
    """Return tick and previous tick of each task, oldest tick first."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT (input_data ->> 'tick_at')::timestamptz AS at, "
            "(input_data ->> 'previous_tick_at')::timestamptz AS previous "
            "FROM async_tasks WHERE task_type = $1 ORDER BY at",
            name,
        )
    return [(row["at"], row["previous"]) for row in rows]


async def change_tasks(superuser: asyncpg.Connection, status: str = "COMPLETED") -> None:
    lease = "now(), lease_token = gen_random_uuid()" if status == "RUNNING" else "NULL, lease_token = NULL"
    await superuser.execute(
        f"UPDATE async_tasks SET status = $1::text::task_status, lease_until = {lease}", status
    )


async def test_tick_creates_one_task_and_advances_the_schedule(
    database: Database, declare: Declare, tick: CreateTasks
) -> None:
    task = every_minute()
    await declare(task, at=NOON)
    assert await tick(task, at=NOON + MINUTE / 2) == 0
    assert await tick(task, at=NOON + MINUTE) == 1
    assert await tick(task, at=NOON + MINUTE) == 0
    assert await tasks(database) == [(NOON + MINUTE, None)]
    row = await schedule_row(database)
    assert (row["last_tick_at"], row["next_tick_at"]) == (NOON + MINUTE, NOON + 2 * MINUTE)
    assert row["task_open"]


async def test_first_tick_follows_the_declaration_by_the_clock_of_the_database(
    database: Database, declare: Declare, superuser: asyncpg.Connection
) -> None:
    before = await superuser.fetchval("SELECT now()")
    await declare(every_minute())
    after = await superuser.fetchval("SELECT now()")
    [first], [last] = minutes_from(before, 1), minutes_from(after, 1)
    assert first <= (await schedule_row(database))["next_tick_at"] <= last


async def test_missed_ticks_become_one_task_by_default(
    database: Database, declare: Declare, tick: CreateTasks, superuser: asyncpg.Connection
) -> None:
    task = every_minute()
    await declare(task, at=NOON)
    await tick(task, at=NOON + MINUTE)
    await change_tasks(superuser)
    assert await tick(task, at=NOON + timedelta(hours=2, seconds=30)) == 1
    late = NOON + timedelta(hours=2)
    assert (await tasks(database))[1:] == [(late, NOON + MINUTE)]
    assert (await schedule_row(database))["next_tick_at"] == late + MINUTE


async def test_each_missed_tick_becomes_a_task_if_declared_so(
    database: Database, declare: Declare, tick: CreateTasks, superuser: asyncpg.Connection
) -> None:
    task = every_minute(missed=MissedTicks.EACH)
    await declare(task, at=NOON)
    now = NOON + 5 * MINUTE
    while await tick(task, at=now):
        await change_tasks(superuser)
    assert [at for at, _ in await tasks(database)] == minutes_from(NOON, 5)
    assert [previous for _, previous in await tasks(database)] == [None, *minutes_from(NOON, 4)]


async def test_missed_ticks_follow_a_tick_whose_task_exists(
    database: Database, declare: Declare, tick: CreateTasks, superuser: asyncpg.Connection
) -> None:
    """The schedule was changed and changed back, by a process whose clock is late."""
    task = every_minute(missed=MissedTicks.EACH)
    await declare(task, at=NOON)
    await tick(task, at=NOON + MINUTE)
    await change_tasks(superuser)
    await declare(every_minute(cron="0 * * * *"), at=NOON)
    await declare(task, at=NOON)
    while await tick(task, at=NOON + 3 * MINUTE):
        await change_tasks(superuser)
    assert [at for at, _ in await tasks(database)] == minutes_from(NOON, 3)


async def test_tick_waits_while_the_former_task_is_open(
    database: Database, declare: Declare, tick: CreateTasks, superuser: asyncpg.Connection
) -> None:
    task = every_minute()
    await declare(task, at=NOON)
    await tick(task, at=NOON + MINUTE)
    for status in ("PENDING", "RUNNING"):
        await change_tasks(superuser, status)
        assert await tick(task, at=NOON + 3 * MINUTE) == 0
    await change_tasks(superuser, "FAILED")
    assert await tick(task, at=NOON + 3 * MINUTE) == 1
    assert [at for at, _ in await tasks(database)] == [NOON + MINUTE, NOON + 3 * MINUTE]


async def test_tick_overlaps_the_former_task_if_declared_so(
    database: Database, declare: Declare, tick: CreateTasks
) -> None:
    task = every_minute(may_overlap=True)
    await declare(task, at=NOON)
    assert [await tick(task, at=NOON + minute * MINUTE) for minute in (1, 2)] == [1, 1]


@pytest.mark.parametrize(
    ("status", "error"), [("COMPLETED", None), ("FAILED", {"error_code": "E"}), ("CANCELLED", None)]
)
async def test_outcome_of_the_last_task_is_recorded(
    database: Database,
    declare: Declare,
    tick: CreateTasks,
    superuser: asyncpg.Connection,
    status: str,
    error: dict[str, Any] | None,
) -> None:
    task = every_minute()
    await declare(task, at=NOON)
    await tick(task, at=NOON + MINUTE)
    await superuser.execute("""UPDATE async_tasks SET error_data = '{"error_code": "E"}'""")
    await change_tasks(superuser, status)
    await tick(task, at=NOON + MINUTE)
    row = await schedule_row(database)
    assert (row["last_outcome"], row["task_open"]) == (status, False)
    assert row["last_error"] == error
    assert row["last_duration_s"] >= 0
    assert row["last_ended_at"] == await superuser.fetchval("SELECT updated_at FROM async_tasks")


async def test_task_that_was_retried_changes_the_outcome(
    database: Database, declare: Declare, tick: CreateTasks, superuser: asyncpg.Connection
) -> None:
    task = every_minute()
    await declare(task, at=NOON)
    await tick(task, at=NOON + MINUTE)
    for status in ("FAILED", "COMPLETED"):
        await change_tasks(superuser, status)
        await tick(task, at=NOON + MINUTE)
    assert (await schedule_row(database))["last_outcome"] == "COMPLETED"


async def test_task_that_retention_removed_does_not_hold_the_schedule_back(
    database: Database, declare: Declare, tick: CreateTasks, superuser: asyncpg.Connection
) -> None:
    task = every_minute()
    await declare(task, at=NOON)
    await tick(task, at=NOON + MINUTE)
    await superuser.execute("DELETE FROM async_tasks")
    assert await tick(task, at=NOON + 2 * MINUTE) == 1
    assert (await schedule_row(database))["last_outcome"] is None


async def test_same_declaration_keeps_a_tick_that_is_due(
    database: Database, declare: Declare, tick: CreateTasks
) -> None:
    task = every_minute()
    await declare(task, at=NOON)
    await declare(task, at=NOON + timedelta(hours=1))
    assert await tick(task, at=NOON + timedelta(hours=1)) == 1


@pytest.mark.parametrize("changed", [{"cron": "0 * * * *"}, {"timezone": "Asia/Tokyo"}])
async def test_changed_expression_or_zone_starts_from_now(
    database: Database, declare: Declare, tick: CreateTasks, changed: dict[str, str]
) -> None:
    await declare(every_minute(), at=NOON)
    task, now = every_minute(**changed), NOON + timedelta(hours=1)
    await declare(task, at=now)
    row = await schedule_row(database)
    assert row["next_tick_at"] == task.next_tick(now)
    assert (row["cron"], row["timezone"]) == (task.cron, task.timezone)


async def test_process_with_a_former_expression_ticks_by_the_recorded_one(
    database: Database, declare: Declare, tick: CreateTasks
) -> None:
    former = every_minute()
    await declare(former, at=NOON)
    await declare(every_minute(cron="0 * * * *"), at=NOON)
    assert await tick(former, at=NOON + timedelta(minutes=59)) == 0
    assert await tick(former, at=NOON + timedelta(hours=1)) == 1
    assert (await schedule_row(database))["next_tick_at"] == NOON + timedelta(hours=2)


async def test_schedule_that_another_program_declared_does_not_tick(
    database: Database, declare: Declare, tick: CreateTasks
) -> None:
    await declare(every_minute("Test.Other"), at=NOON)
    assert await tick(every_minute(), at=NOON + MINUTE) == 0


async def test_unreadable_expression_holds_back_only_its_schedule(
    database: Database, declare: Declare, tick: CreateTasks, superuser: asyncpg.Connection
) -> None:
    newer, other = every_minute("Test.Newer"), every_minute()
    await declare(newer, other, at=NOON)
    await superuser.execute("UPDATE work_schedules SET cron = '@newer' WHERE name = $1", newer.name)
    with capture_logs() as logs:
        assert await tick(newer, other, at=NOON + MINUTE) == 1
        assert await tick(newer, at=NOON + 2 * MINUTE) == 0
    unusable = "schedule has an unusable cron expression or time zone; no tasks are created"
    assert [(one["event"], one["schedule"]) for one in logs] == [(unusable, newer.name)]
    await superuser.execute("UPDATE work_schedules SET cron = '@newest' WHERE name = $1", newer.name)
    with capture_logs() as logs:
        await tick(newer, at=NOON + 3 * MINUTE)
    assert "'@newest'" in logs[0]["reason"]


@pytest.mark.parametrize("missed", MissedTicks)
async def test_concurrent_calls_create_each_task_once(
    database: Database,
    declare: Declare,
    tick: CreateTasks,
    superuser: asyncpg.Connection,
    missed: MissedTicks,
) -> None:
    found: list[RecurringTask] = [every_minute(f"{NAME}{one}", missed=missed) for one in range(5)]
    await declare(*found, at=NOON)
    for minute in range(1, 21):
        now = NOON + minute * MINUTE
        created = await asyncio.gather(*(tick(*found, at=now) for _ in range(5)))
        assert sum(created) + await tick(*found, at=now) == 5
        await change_tasks(superuser)
    for one in found:
        assert [at for at, _ in await tasks(database, one.name)] == minutes_from(NOON, 20)
