"""Recurring tasks whose ticks a test creates and runs."""

from collections.abc import Awaitable, Callable
from datetime import datetime

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.schedules import RecurringTask, create_due_tasks, declare_schedules

from tests.fixtures.schedule_rows import create_ticks_table

Declare = Callable[..., Awaitable[None]]


@pytest.fixture
async def ticks_table(superuser: asyncpg.Connection) -> None:
    await create_ticks_table(superuser)


@pytest.fixture
def declare(database: Database) -> Declare:
    """``await declare(task, at=…)``: record the schedule as a process that starts at this time does."""

    async def declare(*tasks: RecurringTask, at: datetime | None = None) -> None:
        async with database.connection() as connection:
            await declare_schedules(connection, tasks, now=at)

    return declare


@pytest.fixture
def tick(database: Database) -> Callable[..., Awaitable[int]]:
    """``await tick(task, at=…)``: create the tasks that are due at this time; return their number."""

    async def tick(*tasks: RecurringTask, at: datetime | None = None) -> int:
        return await create_due_tasks(database, [task.name for task in tasks], now=at)

    return tick
