"""Recurring tasks whose time a test controls."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from relaybox.db import Database, Executor
from relaybox.schedules import MissedTicks
from relaybox.settings import PostgresSettings
from relaybox.tasks import AttemptOutcome
from relaybox.testing import Schedules, Tasks

from tests.fixtures.schedule_rows import create_ticks_table, every_minute, minutes_from, recorded_ticks

NOON = datetime(2026, 3, 28, 12, tzinfo=UTC)


@pytest.fixture
async def owner(relaybox_postgres_settings: PostgresSettings) -> AsyncIterator[Executor]:
    database = Database(relaybox_postgres_settings.as_owner())
    async with database.connection() as connection:
        await create_ticks_table(connection)
        yield connection
    await database.close()


async def test_ticks_run_when_the_test_says_what_time_it_is(
    relaybox_database: Database,
    relaybox_schedules: Schedules,
    relaybox_tasks: Tasks,
    owner: Executor,
) -> None:
    each = every_minute("Test.Each", missed=MissedTicks.EACH)
    await relaybox_schedules.start([every_minute(), each], at=NOON)
    assert await relaybox_schedules.advance_to(NOON) == []
    runs = await relaybox_schedules.advance_to(NOON + timedelta(minutes=3))
    assert [run.outcome for run in runs] == [AttemptOutcome.ENDED] * 4
    assert await recorded_ticks(relaybox_database) == minutes_from(NOON, 3)[2:]
    assert await recorded_ticks(relaybox_database, each.name) == minutes_from(NOON, 3)
    await owner.fetch("ALTER TABLE ticks RENAME TO hidden")
    runs = await relaybox_schedules.advance_to(NOON + timedelta(minutes=4))
    assert [run.outcome for run in runs] == [AttemptOutcome.POSTPONED] * 2
    await owner.fetch("ALTER TABLE hidden RENAME TO ticks")
    await relaybox_tasks.advance(2)
    assert len(await relaybox_schedules.advance_to(NOON + timedelta(minutes=4))) == 2
