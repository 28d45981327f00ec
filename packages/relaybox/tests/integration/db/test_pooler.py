"""Connections through a real PgBouncer."""

import asyncio
from collections.abc import AsyncIterator, Mapping

import asyncpg
import pytest
from relaybox.db import BACKBONE, Database, DatabaseBusy, DatabaseUnavailable, executor_of, migrate_up
from relaybox.settings import PostgresSettings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.pgbouncer import PgBouncer, PoolMode, StartPgBouncer, apply_suggested_remedy

MODES = ("session", "transaction")
_LIMITS = {
    "lock_timeout": "200",
    "statement_timeout": "2000",
    "idle_in_transaction_session_timeout": "300",
    "client_connection_check_interval": "500",
    "jit": "off",
    "search_path": "public",
}
_LONG = dict.fromkeys(
    ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout"), str(int(WAIT_S * 1_000))
)


@pytest.fixture(params=MODES)
async def pooler(request: pytest.FixtureRequest, start_pgbouncer: StartPgBouncer) -> PgBouncer:
    """Run a PgBouncer in each mode."""
    return await start_pgbouncer(request.param)


async def _database(
    pooler: PgBouncer, postgres: PostgresSettings, superuser: asyncpg.Connection, limits: Mapping[str, str]
) -> Database:
    """Return connections through *pooler* with *limits*, which the role has in transaction mode."""
    milliseconds = {
        "lock_timeout_ms": limits["lock_timeout"],
        "statement_timeout_ms": limits["statement_timeout"],
        "idle_in_transaction_timeout_ms": limits["idle_in_transaction_session_timeout"],
    }
    settings = pooler.settings(
        postgres.model_copy(update={name: int(value) for name, value in milliseconds.items()})
    )
    if pooler.mode == "transaction":
        for name, value in limits.items():
            await superuser.execute(
                f'ALTER ROLE "{settings.user}" IN DATABASE "{settings.db}" SET {name} = {value}'
            )
    return Database(settings, application_name="pooled")


@pytest.fixture
async def pooled(
    pooler: PgBouncer, postgres_settings: PostgresSettings, superuser: asyncpg.Connection
) -> AsyncIterator[Database]:
    """Return connections through *pooler* with short limits."""
    database = await _database(pooler, postgres_settings, superuser, _LIMITS)
    yield database
    await database.close()


@pytest.fixture
async def pooled_for_many(
    pooler: PgBouncer, postgres_settings: PostgresSettings, superuser: asyncpg.Connection
) -> AsyncIterator[Database]:
    """Return connections through *pooler* with limits that many clients on a busy machine do not reach."""
    database = await _database(pooler, postgres_settings, superuser, {**_LIMITS, **_LONG})
    yield database
    await database.close()


async def test_error_names_the_setting_for_a_pooler(
    start_pgbouncer: StartPgBouncer, postgres_settings: PostgresSettings
) -> None:
    pooler = await start_pgbouncer("session")
    database = Database(postgres_settings.model_copy(update={"port": pooler.port}))
    with pytest.raises(DatabaseUnavailable, match=r"startup parameter \w+.*POSTGRES_POOLER"):
        await database.begin()
    await database.close()


async def test_error_names_a_wrong_pool_mode(
    start_pgbouncer: StartPgBouncer, postgres_settings: PostgresSettings
) -> None:
    pooler = await start_pgbouncer("transaction")
    wrong = pooler.settings(postgres_settings).model_copy(update={"pooler": "session"})
    database = Database(wrong)

    async def ask(number: int) -> None:
        async with database.connection() as connection:
            await connection.fetch("SELECT $1::int, pg_sleep(0.01)", number)

    with pytest.raises(DatabaseUnavailable, match=r"prepared statement.*POSTGRES_POOLER"):
        await asyncio.gather(*map(ask, range(100)))
    await database.close()


@pytest.mark.guarantee("G69")
async def test_every_limit_is_in_force_through_the_pooler(pooled: Database) -> None:
    async with pooled.connection() as connection:
        rows = await connection.fetch(
            "SELECT name, setting FROM pg_settings WHERE name = ANY ($1)", list(_LIMITS)
        )
    assert dict(rows) == _LIMITS


async def test_lock_and_statement_timeouts_cancel_through_the_pooler(
    pooled: Database, superuser: asyncpg.Connection
) -> None:
    async with superuser.transaction():
        await superuser.execute("LOCK event_outbox")
        with pytest.raises(DatabaseBusy, match="55P03"):
            await pooled.run_in_transaction(lambda db: executor_of(db).fetch("SELECT FROM event_outbox"))
    with pytest.raises(DatabaseBusy, match="57014"):
        async with pooled.connection() as connection:
            await connection.fetch("SELECT pg_sleep(600)")


@pytest.mark.guarantee("G69")
async def test_idle_transaction_is_rolled_back_through_the_pooler(
    pooled: Database, superuser: asyncpg.Connection
) -> None:
    db = await pooled.begin()
    pid = (await db.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    async with asyncio.timeout(WAIT_S):
        while await superuser.fetchval("SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid):
            continue
    with pytest.raises(DatabaseUnavailable):
        await pooled.run_in_transaction(lambda _: _end(db))
    await db.close()
    assert await pooled.run_in_transaction(_backend)


async def _end(db: AsyncSession) -> None:
    await db.execute(text("SELECT 1"))


async def _backend(db: AsyncSession) -> int:
    return (await db.execute(text("SELECT pg_backend_pid()"))).scalar_one()


async def test_statements_of_many_clients_have_their_own_parameters(pooled_for_many: Database) -> None:
    async def by_driver(number: int) -> int:
        async with pooled_for_many.connection() as connection:
            rows = await connection.fetch("SELECT $1::int + 1 AS next, pg_sleep(0.001)", number)
            return rows[0]["next"]

    async def by_session(number: int) -> int:
        async def twice(db: AsyncSession) -> int:
            await db.execute(text("SELECT CAST(:n AS text)"), {"n": str(number)})
            return (await db.execute(text("SELECT CAST(:n AS int) + 1"), {"n": number})).scalar_one()

        return await pooled_for_many.run_in_transaction(twice)

    numbers = range(100)
    for ask in (by_driver, by_session):
        assert await asyncio.gather(*map(ask, numbers)) == [number + 1 for number in numbers]


async def test_listen_bypasses_the_pooler(pooled: Database) -> None:
    heard = asyncio.Event()
    connection = await pooled.dedicated()
    try:
        await connection.add_listener("news", lambda *_: heard.set())
        async with pooled.connection() as other:
            await other.fetch("SELECT pg_notify('news', '')")
        await asyncio.wait_for(heard.wait(), WAIT_S)
    finally:
        connection.terminate()


async def test_transaction_pooler_without_limits_is_refused_with_the_remedy(
    start_pgbouncer: StartPgBouncer, postgres_settings: PostgresSettings, superuser: asyncpg.Connection
) -> None:
    pooler = await start_pgbouncer("transaction")
    database = Database(pooler.settings(postgres_settings))
    with pytest.raises(DatabaseUnavailable, match="lock_timeout is 0 instead of 3000"):
        await database.begin()
    await apply_suggested_remedy(database, superuser)
    assert await database.run_in_transaction(_backend)
    await database.close()


@pytest.mark.parametrize("mode", MODES)
async def test_migrations_bypass_a_transaction_pooler(
    start_pgbouncer: StartPgBouncer, empty_postgres_settings: PostgresSettings, mode: PoolMode
) -> None:
    pooler = await start_pgbouncer(mode)
    await pooler.stop()
    assert await migrate_up(pooler.settings(empty_postgres_settings), BACKBONE)


async def test_migrations_run_through_a_session_pooler(
    start_pgbouncer: StartPgBouncer, empty_postgres_settings: PostgresSettings
) -> None:
    pooler = await start_pgbouncer("session")
    through = pooler.settings(empty_postgres_settings).model_copy(update={"direct_host": None})
    assert await migrate_up(through, BACKBONE)
