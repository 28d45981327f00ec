"""Transactions that publish one event concurrently: one event is recorded, and all get it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import get_args

import asyncpg
import pytest
from relaybox.db import Database, Isolation, RetryTransaction
from relaybox.events import EventBus, RecordedEvent
from relaybox.settings import PostgresSettings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.event_publishing import new_event, publish_event, row_counts
from tests.fixtures.waiting import eventually

MANY = 32
SNAPSHOTS = ("REPEATABLE READ", "SERIALIZABLE")
ISOLATIONS = pytest.mark.parametrize("isolation", get_args(Isolation))


@pytest.fixture
async def wide(postgres_settings: PostgresSettings) -> AsyncIterator[Database]:
    """Return a database with a connection for each concurrent transaction of these tests."""
    database = Database(postgres_settings.model_copy(update={"pool_size": MANY}), application_name="wide")
    yield database
    await database.close()


@pytest.fixture
def until_waiting(superuser: asyncpg.Connection) -> Callable[[], Awaitable[None]]:
    """Return when a transaction waits for the end of another one."""
    waiting = (
        "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) "
        "WHERE locktype = 'transactionid' AND NOT granted AND datname = current_database()"
    )

    async def wait() -> None:
        await eventually("a transaction that waits", lambda: superuser.fetchval(waiting))

    return wait


@asynccontextmanager
async def transaction(database: Database, isolation: Isolation) -> AsyncGenerator[AsyncSession]:
    """Begin a transaction of the caller; it is rolled back unless committed."""
    async with database.sessions() as db:
        await db.connection(execution_options={"isolation_level": isolation})
        await db.execute(text("SELECT 1"))  # takes the snapshot
        yield db


@ISOLATIONS
async def test_32_concurrent_publishers_of_one_id_get_one_recorded_event(
    wide: Database, isolation: Isolation
) -> None:
    async def one(turn: int, begun: asyncio.Barrier) -> RecordedEvent:
        waits = [begun.wait]

        async def work(db: AsyncSession) -> RecordedEvent:
            await db.execute(text("SELECT 1"))
            while waits:  # only in the first run: in a retry the others have ended
                await waits.pop()()
            return await EventBus(db).publish(new_event(aggregate_id=f"c-{turn}"), f"evt_{turn}")

        return await wide.run_in_transaction(work, isolation=isolation)

    for turn in range(10):
        begun = asyncio.Barrier(MANY)
        answers = await asyncio.gather(*(one(turn, begun) for _ in range(MANY)))
        assert all(answer == answers[0] for answer in answers)
        assert await row_counts(wide) == (turn + 1, turn + 1)


async def test_read_committed_32_publishers_get_the_event_without_retry(
    wide: Database,
) -> None:
    async def one(turn: int) -> RecordedEvent:
        async with transaction(wide, "READ COMMITTED") as db:
            recorded = await EventBus(db).publish(new_event(aggregate_id=f"c-{turn}"), f"evt_{turn}")
            await db.commit()
            return recorded

    for turn in range(10):
        answers = await asyncio.gather(*(one(turn) for _ in range(MANY)))
        assert all(answer == answers[0] for answer in answers)
        assert await row_counts(wide) == (turn + 1, turn + 1)


async def test_read_committed_second_publisher_waits_and_gets_the_event(
    database: Database, until_waiting: Callable[[], Awaitable[None]]
) -> None:
    async with (
        transaction(database, "READ COMMITTED") as one,
        transaction(database, "READ COMMITTED") as other,
    ):
        first = await EventBus(one).publish(new_event(), "evt_123")
        second = asyncio.create_task(EventBus(other).publish(new_event(), "evt_123"))
        await until_waiting()
        await one.commit()
        assert await second == first
        await other.commit()
    assert await row_counts(database) == (1, 1)


@ISOLATIONS
async def test_second_publisher_records_its_event_if_the_first_rolls_back(
    database: Database, until_waiting: Callable[[], Awaitable[None]], isolation: Isolation
) -> None:
    async with transaction(database, isolation) as one, transaction(database, isolation) as other:
        await EventBus(one).publish(new_event(), "evt_123")
        second = asyncio.create_task(EventBus(other).publish(new_event(payload={"of": "other"}), "evt_123"))
        await until_waiting()
        await one.rollback()
        assert (await second).payload == {"of": "other"}
        await other.commit()
    assert await row_counts(database) == (1, 1)


@pytest.mark.parametrize("isolation", SNAPSHOTS)
@pytest.mark.parametrize("version", [1, 2])
async def test_publisher_with_an_old_snapshot_must_run_again(
    database: Database, isolation: Isolation, version: int
) -> None:
    async with transaction(database, isolation) as late:
        for number in range(1, version + 1):
            await publish_event(database, f"evt_{number}", version=number)
        with pytest.raises(RetryTransaction):
            await EventBus(late).publish(new_event(version=version), f"evt_{version}")
    assert await row_counts(database) == (version, version)


@ISOLATIONS
async def test_existing_version_of_a_published_event_is_a_lost_race(
    database: Database, isolation: Isolation
) -> None:
    await publish_event(database, "evt_1")
    async with transaction(database, isolation) as db:
        with pytest.raises(RetryTransaction, match="cannot be version 1 of COUNTER 'c-1'"):
            await EventBus(db).publish(new_event(), "evt_2")
    assert await row_counts(database) == (1, 1)


@ISOLATIONS
async def test_version_that_leaves_a_gap_is_not_recorded(database: Database, isolation: Isolation) -> None:
    await publish_event(database, "evt_1")
    for version in (1, 2):  # versions of other aggregates fill no gap
        await publish_event(database, aggregate_id="c-2", version=version)
        await publish_event(database, aggregate_type="NODE", version=version)
    async with transaction(database, isolation) as db:
        for version in (3, 2**31 - 1):
            with pytest.raises(RetryTransaction, match=f"cannot be version {version} of COUNTER 'c-1'"):
                await EventBus(db).publish(new_event(version=version))
        await db.commit()
    assert await row_counts(database) == (5, 5)


@ISOLATIONS
async def test_version_read_in_the_transaction_keeps_the_stream_gapless(
    wide: Database, isolation: Isolation
) -> None:
    async def work(db: AsyncSession) -> RecordedEvent:
        found = await db.execute(text("SELECT coalesce(max(aggregate_version), 0) + 1 FROM domain_events"))
        return await EventBus(db).publish(new_event(version=found.scalar_one()))

    answers = await asyncio.gather(
        *(wide.run_in_transaction(work, isolation=isolation, attempts_max=100) for _ in range(MANY))
    )
    assert sorted(answer.version for answer in answers) == list(range(1, MANY + 1))
    async with wide.connection() as connection:
        rows = await connection.fetch(
            "SELECT (payload ->> 'version')::int AS version FROM event_outbox ORDER BY seq"
        )
    assert [row["version"] for row in rows] == list(range(1, MANY + 1))


async def test_two_publishers_in_opposite_order_both_end(database: Database) -> None:
    met = asyncio.Barrier(2)

    async def both(*names: str) -> list[RecordedEvent]:
        waits = [met.wait]

        async def work(db: AsyncSession) -> list[RecordedEvent]:
            first = await EventBus(db).publish(new_event(aggregate_id=names[0]), names[0])
            while waits:  # only in the first run: in a retry the other one has ended
                await waits.pop()()
            return [first, await EventBus(db).publish(new_event(aggregate_id=names[1]), names[1])]

        return await database.run_in_transaction(work)

    one, other = await asyncio.gather(both("evt_1", "evt_2"), both("evt_2", "evt_1"))
    assert one == other[::-1]
    assert await row_counts(database) == (2, 2)
