"""Recurring tasks whose processes are killed: each tick takes effect once, and none is left out."""

import asyncio
import random
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.schedules import declare_schedules
from relaybox.settings import PostgresSettings

from tests.fixtures.processes import PythonProcess, python_process, server_environment
from tests.fixtures.schedule_process import runner_of
from tests.fixtures.schedule_rows import (
    NAME,
    create_ticks_table,
    each_minute,
    minutes_from,
    recorded_ticks,
)
from tests.fixtures.waiting import eventually

_STATEMENTS_MAX = 60
_MODULE = "tests.fixtures.schedule_process"


@pytest.fixture(autouse=True)
async def ticks_table(superuser: asyncpg.Connection) -> None:
    await create_ticks_table(superuser)


async def declare_before(database: Database, minutes: int) -> list[datetime]:
    """Record a schedule with this number of missed ticks; return the ticks."""
    start = datetime.now(UTC) - timedelta(minutes=minutes)
    async with database.connection() as connection:
        await connection.fetch("DELETE FROM work_schedules WHERE name = $1", NAME)
        await declare_schedules(connection, [each_minute], now=start)
    return minutes_from(start, minutes)


async def wait_for_ticks(database: Database, expected: list[datetime]) -> None:
    """Wait until the last of the ticks *expected* is recorded."""

    async def last_tick() -> bool:
        return expected[-1] in await recorded_ticks(database)

    await eventually("the last tick", last_tick)


async def check_ticks(database: Database, expected: list[datetime]) -> None:
    recorded = Counter(await recorded_ticks(database))
    assert {tick for tick, times in recorded.items() if times > 1} == set()
    assert set(expected) - set(recorded) == set()


async def test_schedule_killed_at_any_statement_ticks_once(
    database: Database, postgres_settings: PostgresSettings
) -> None:
    environment = server_environment(postgres_settings)
    for number in range(1, _STATEMENTS_MAX):
        expected = await declare_before(database, 1)
        async with python_process(_MODULE, str(number), environment=environment) as process:
            code = await process.exit_code()
        assert code in (0, -signal.SIGKILL)
        async with running(database):
            await wait_for_ticks(database, expected)
        await check_ticks(database, expected)
        async with database.connection() as connection:
            await connection.fetch("DELETE FROM ticks")
            await connection.fetch("DELETE FROM async_tasks")
        if code == 0:
            return
    raise AssertionError(f"a tick takes over {_STATEMENTS_MAX} statements")


@asynccontextmanager
async def running(database: Database) -> AsyncIterator[None]:
    """Run the recurring task in this process."""
    runner = runner_of(database)
    work = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        runner.stop()
        await work


@pytest.mark.parametrize(("processes", "ticks"), [(3, 60), pytest.param(8, 1_000, marks=pytest.mark.long)])
@pytest.mark.timeout(3_600)
async def test_processes_that_are_killed_run_each_tick_once(
    database: Database, postgres_settings: PostgresSettings, processes: int, ticks: int
) -> None:
    expected = await declare_before(database, ticks)
    killed = await kill_until(database, expected, processes, server_environment(postgres_settings))
    await check_ticks(database, expected)
    sys.stdout.write(f"{killed} processes killed during {ticks} ticks\n")


async def kill_until(
    database: Database, expected: list[datetime], number: int, environment: dict[str, str]
) -> int:
    """Run *number* processes until all ticks are recorded; return how many were killed meanwhile.

    After 1 to 25 further ticks, and up to 0.1 s, one process is killed, and another started instead. Kills
    that depend on the time alone would leave no process alive on a slow machine.
    """
    chance, killed = random.Random(number), 0
    async with AsyncExitStack() as stack:

        async def start() -> PythonProcess:
            return await stack.enter_async_context(python_process(_MODULE, environment=environment))

        processes = [await start() for _ in range(number)]
        while expected[-1] not in (done := await recorded_ticks(database)):
            wanted = expected[min(len(done) + chance.randint(1, 25), len(expected)) - 1]
            await wait_for_ticks(database, [wanted])
            await asyncio.sleep(chance.uniform(0, 0.1))
            one = chance.randrange(number)
            processes[one].signal(signal.SIGKILL)
            await processes[one].exit_code()
            processes[one] = await start()
            killed += 1
    return killed
