"""Concurrent wakes of the same tasks wait for each other."""

import asyncio
from uuid import UUID

import asyncpg
from relaybox.db import Database
from relaybox.tasks import wake_tasks

from tests.fixtures.task_rows import TASK_TYPE, task_row
from tests.fixtures.waiting import eventually

FIRST, MIDDLE, LAST = (UUID(int=number) for number in (1, 2, 3))
#: The order of the ids is that of the creation, and the reverse of the order in the table.
_INSERT = """
    INSERT INTO async_tasks (id, task_type, created_at, not_before)
    VALUES ($1, $2, now() - interval '1 d' + make_interval(secs => $3), now() + interval '1 h')
"""
_WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0
"""


async def test_wakes_that_read_in_different_orders_do_not_deadlock(
    database: Database, superuser: asyncpg.Connection
) -> None:
    for task_id in (LAST, MIDDLE, FIRST):
        await superuser.execute(_INSERT, task_id, TASK_TYPE, task_id.int)

    woken: list[frozenset[str]] = []

    async def wake(*disabled: str) -> None:
        """Wake all three tasks, whose rows PostgreSQL reads by a plan without the methods *disabled*."""
        async with database.connection() as connection, connection.transaction():
            for method in disabled:
                await connection.execute(f"SET LOCAL enable_{method} = off")
            woken.append(await wake_tasks(connection, [LAST, FIRST, MIDDLE]))

    async def waiting(number: int) -> bool:
        return await superuser.fetchval(_WAITING) == number

    # Both wakes lock their first row, then wait for the one in the middle.
    async with (
        asyncio.TaskGroup() as group,
        database.connection() as connection,
        connection.transaction(),
    ):
        await connection.execute("SELECT id FROM async_tasks WHERE id = $1 FOR UPDATE", MIDDLE)
        group.create_task(wake("seqscan", "bitmapscan"))  # in the order of an index
        await eventually("the first wake waits", lambda: waiting(1))
        group.create_task(wake("indexscan", "bitmapscan"))  # in the order of the table
        await eventually("both wakes wait", lambda: waiting(2))
    for task_id in (FIRST, MIDDLE, LAST):
        assert (await task_row(database, task_id))["not_before"] is None
    assert woken == [{TASK_TYPE}, frozenset()], "the second wake found tasks that wait for no time any more"
