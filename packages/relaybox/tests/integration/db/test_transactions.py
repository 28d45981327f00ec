"""Transactions that the library begins: after a lost race the work runs again, a bounded number of times."""

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.db import Database, DatabaseBusy, DatabaseError, RetryTransaction, sqlstate_of
from sqlalchemy import exc, text
from sqlalchemy.ext.asyncio import AsyncSession

READ = text("SELECT (state ->> 'n')::int FROM aggregate_snapshots WHERE id = :id")
WRITE = text("UPDATE aggregate_snapshots SET state = jsonb_build_object('n', (:n)::int) WHERE id = :id")


@pytest.fixture
async def rows(database: Database) -> list[UUID]:
    """Create two rows, each with n = 0."""
    ids = [uuid4(), uuid4()]
    async with database.connection() as connection:
        await connection.fetch(
            "INSERT INTO aggregate_snapshots (id, aggregate_type, owner, state)"
            " SELECT id, 'ROW', 'ada', '{\"n\": 0}' FROM unnest($1::uuid[]) AS id",
            ids,
        )
    return ids


async def n_of(database: Database, row: UUID) -> int:
    async with database.sessions() as db:
        return (await db.execute(READ, {"id": row})).scalar_one()


@pytest.mark.guarantee("G02")
async def test_result_is_returned_after_the_commit(database: Database, rows: list[UUID]) -> None:
    async def work(db: AsyncSession) -> str:
        await db.execute(WRITE, {"id": rows[0], "n": 5})
        return str(await db.scalar(text("SHOW transaction_isolation")))

    assert await database.run_in_transaction(work) == "repeatable read"
    assert await n_of(database, rows[0]) == 5


async def test_error_of_the_work_rolls_back_and_is_not_retried(database: Database, rows: list[UUID]) -> None:
    attempts: list[int] = []

    async def work(db: AsyncSession) -> None:
        attempts.append(1)
        await db.execute(WRITE, {"id": rows[0], "n": 5})
        raise OSError("the caller's own")

    with pytest.raises(OSError, match="own"):
        await database.run_in_transaction(work)
    assert (len(attempts), await n_of(database, rows[0])) == (1, 0)


@pytest.mark.parametrize("value", ["no-id", "\0", 7])
async def test_refused_argument_is_an_error_of_the_caller_not_an_outage(
    database: Database, value: object
) -> None:
    with pytest.raises(asyncpg.DataError, match="argument"):
        async with database.connection() as connection:
            await connection.fetch("SELECT $1::uuid", value)
    with pytest.raises(exc.DBAPIError, match="argument"):
        async with database.sessions() as db:
            await db.execute(text("SELECT CAST(:value AS uuid)"), {"value": value})


async def test_refused_data_is_an_error_of_the_caller_not_an_outage(database: Database) -> None:
    with pytest.raises(Exception, match="uuid") as refused:
        async with database.connection() as connection:
            await connection.fetch("SELECT 'no-id'::text::uuid")
    assert (sqlstate_of(refused.value), isinstance(refused.value, DatabaseError)) == ("22P02", False)


@pytest.mark.guarantee("G04")
async def test_serialization_failure_runs_the_work_in_a_new_snapshot(
    database: Database, rows: list[UUID]
) -> None:
    attempts: list[int] = []

    async def add_one(db: AsyncSession) -> None:
        n = (await db.execute(READ, {"id": rows[0]})).scalar_one()
        attempts.append(n)
        if len(attempts) == 1:
            await database.run_in_transaction(overtake)
        await db.execute(WRITE, {"id": rows[0], "n": n + 1})

    async def overtake(db: AsyncSession) -> None:
        await db.execute(WRITE, {"id": rows[0], "n": 10})

    await database.run_in_transaction(add_one)
    assert attempts == [0, 10]
    assert await n_of(database, rows[0]) == 11


@pytest.mark.guarantee("G04")
async def test_deadlock_is_retried_and_both_transactions_commit(database: Database, rows: list[UUID]) -> None:
    both_hold_one = asyncio.Barrier(2)
    attempts: list[int] = []

    async def touch(db: AsyncSession, order: list[UUID]) -> None:
        attempts.append(1)
        first = len(attempts) <= 2
        for place, row in enumerate(order):
            await db.execute(
                text("UPDATE aggregate_snapshots SET version = version + 1 WHERE id = :id"), {"id": row}
            )
            if first and place == 0:
                await both_hold_one.wait()

    await asyncio.gather(
        database.run_in_transaction(lambda db: touch(db, rows), isolation="READ COMMITTED"),
        database.run_in_transaction(lambda db: touch(db, rows[::-1]), isolation="READ COMMITTED"),
    )
    assert len(attempts) == 3
    async with database.sessions() as db:
        versions = await db.scalars(text("SELECT version FROM aggregate_snapshots"))
        assert versions.all() == [3, 3]


@pytest.mark.guarantee("G04")
@pytest.mark.parametrize("attempts_max", [1, 3])
async def test_number_of_attempts_is_bounded(database: Database, attempts_max: int) -> None:
    attempts: list[int] = []

    async def always_lose(db: AsyncSession) -> None:
        attempts.append(1)
        raise RetryTransaction("lost")

    with pytest.raises(RetryTransaction, match="lost"):
        await database.run_in_transaction(always_lose, attempts_max=attempts_max)
    assert len(attempts) == attempts_max


@pytest.mark.parametrize("attempts_max", [0, -1])
async def test_number_of_attempts_below_one_is_refused(database: Database, attempts_max: int) -> None:
    async def work(db: AsyncSession) -> None:
        raise AssertionError

    with pytest.raises(ValueError, match=f"attempts_max is {attempts_max}; it must be at least 1"):
        await database.run_in_transaction(work, attempts_max=attempts_max)


async def test_lock_timeout_is_busy(postgres_settings, rows: list[UUID]) -> None:
    impatient = Database(postgres_settings.model_copy(update={"lock_timeout_ms": 50}))

    async def hold(db: AsyncSession) -> None:
        await db.execute(WRITE, {"id": rows[0], "n": 1})
        with pytest.raises(DatabaseBusy, match="55P03"):
            await impatient.run_in_transaction(want)

    async def want(db: AsyncSession) -> None:
        await db.execute(WRITE, {"id": rows[0], "n": 2})

    await impatient.run_in_transaction(hold)
    assert await n_of(impatient, rows[0]) == 1
    await impatient.close()


async def test_statement_timeout_is_busy(postgres_settings) -> None:
    impatient = Database(postgres_settings.model_copy(update={"statement_timeout_ms": 50}))
    async with impatient.sessions() as holder:
        await holder.execute(text("SELECT pg_advisory_xact_lock(1)"))
        with pytest.raises(DatabaseBusy, match="57014"):
            async with impatient.connection() as connection:
                await connection.fetch("SELECT pg_advisory_xact_lock(1)")
    await impatient.close()


async def test_exhausted_pool_is_busy(postgres_settings) -> None:
    small = Database(postgres_settings.model_copy(update={"pool_size": 1, "connect_timeout_s": 1}))
    async with small.connection():
        with pytest.raises(DatabaseBusy, match="POSTGRES_POOL_SIZE"):
            async with small.connection():
                pass
    await small.close()


async def test_other_errors_of_the_database_are_passed_on_unchanged(database: Database) -> None:
    async def wrong(db: AsyncSession) -> None:
        await db.execute(text("SELECT 1 / 0"))

    with pytest.raises(exc.DBAPIError) as error:
        await database.run_in_transaction(wrong)
    assert sqlstate_of(error.value) == "22012"
    assert not isinstance(error.value, DatabaseError)


async def test_error_does_not_show_values_of_the_statement(database: Database) -> None:
    async def write(db: AsyncSession) -> None:
        await db.execute(text("SELECT CAST(:what AS text) / 1"), {"what": "text-that-must-not-leak"})

    with pytest.raises(exc.DBAPIError) as refused:
        await database.run_in_transaction(write)
    assert "text-that-must-not-leak" not in str(refused.value)
