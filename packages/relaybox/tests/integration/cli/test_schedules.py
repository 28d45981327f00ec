"""``relaybox schedule`` on a real PostgreSQL."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from relaybox.cli import app
from relaybox.db import Database
from relaybox.periodic import run_if_due
from relaybox.schedules import create_due_tasks, declare_schedules
from relaybox.settings import KafkaSettings, PostgresSettings
from typer.testing import CliRunner, Result

from tests.fixtures.outbox_rows import operator_acts
from tests.fixtures.processes import command_environment
from tests.fixtures.schedule_rows import NAME, every_minute

Command = Callable[..., Awaitable[Result]]


@pytest.fixture
def relaybox(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings) -> Command:
    variables = command_environment(postgres_settings, kafka_settings) | {
        "COLUMNS": "220",
        "LOGNAME": "night-shift",
    }

    async def run(*arguments: str) -> Result:
        # In a thread, because a command runs its own event loop.
        return await asyncio.to_thread(CliRunner().invoke, app, [*arguments], env=variables)

    return run


async def fail() -> None:
    raise ValueError("private")


async def _nothing() -> None:
    """Stand for a job's work."""


async def test_schedule_list_shows_tasks_and_jobs(
    database: Database, superuser: asyncpg.Connection, relaybox: Command
) -> None:
    assert (await relaybox("schedule", "list")).stdout == "there is no schedule\n"
    task = every_minute(timezone="Asia/Tokyo")
    async with database.connection() as connection:
        await declare_schedules(connection, [task], now=datetime.now(UTC) - timedelta(hours=1))
    with pytest.raises(ValueError, match="private"):
        await run_if_due(database, "A.job", 3_600, fail)
    head, job, recurring = (await relaybox("schedule", "list")).stdout.splitlines()
    assert head.split() == [
        "name",
        "schedule",
        "last",
        "tick",
        "last",
        "outcome",
        "took",
        "next",
        "tick",
        "error",
    ]
    assert job.split()[:4] == ["A.job", "every", "3600", "s"]
    assert "FAILED" in job
    assert "JOB_FAILED: the job raised ValueError; see the log" in job
    assert recurring.split()[:7] == [NAME, *(["*"] * 5), "Asia/Tokyo"]
    # The first tick was the next full minute an hour ago; the command may run in a later minute.
    assert re.search(r"overdue (59|6\d) m", recurring)
    await create_due_tasks(database, [task.name])
    assert "PENDING" in (await relaybox("schedule", "list")).stdout
    await superuser.execute("UPDATE async_tasks SET status = 'CANCELLED'")
    [_, found] = json.loads((await relaybox("schedule", "list", "--json")).stdout)
    assert (found["name"], found["last_outcome"], found["task_status"]) == (NAME, "CANCELLED", None)
    assert (
        "only the first 1 schedules are shown" in (await relaybox("schedule", "list", "--limit", "1")).stdout
    )


async def test_schedule_remove_is_recorded_and_needs_yes(database: Database, relaybox: Command) -> None:
    async with database.connection() as connection:
        await declare_schedules(connection, [every_minute()])
    arguments = ("schedule", "remove", NAME, "--reason", "old")
    assert (await relaybox(*arguments)).stdout == (
        f"dry run: {NAME} would be removed; add --yes to do it\n"
        "a running process that still declares the schedule creates no more tasks of it until the "
        "process is restarted; the schedule of a shared job is recorded again by the next run of the job\n"
    )
    assert (await relaybox(*arguments, "--yes")).stdout.startswith(f"removed {NAME}\na running process")
    [act] = await operator_acts(database)
    assert (act["actor"], act["act"], act["reason"]) == ("night-shift", "remove", "old")
    for options in ((), ("--yes", "--json")):
        unknown = await relaybox(*arguments, *options)
        assert (unknown.exit_code, "there is no schedule" in unknown.stderr) == (1, True)


async def test_removed_job_of_a_running_process_is_recorded_again(
    database: Database, relaybox: Command
) -> None:
    async def run() -> None:
        assert await run_if_due(database, "A.job", 3_600, _nothing) > 0

    await run()
    removed = await relaybox("schedule", "remove", "A.job", "--reason", "old", "--yes")
    assert "a shared job is recorded again by the next run" in removed.stdout
    assert (await relaybox("schedule", "list")).stdout == "there is no schedule\n"
    await run()
    assert "A.job" in (await relaybox("schedule", "list")).stdout
