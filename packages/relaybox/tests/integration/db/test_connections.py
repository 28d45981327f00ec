"""PostgreSQL stops and starts again while the process continues to run."""

import asyncio

import asyncpg
import pytest
from pydantic import SecretStr
from relaybox.db import Database, DatabaseUnavailable
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S


async def one(db: AsyncSession) -> int:
    return (await db.execute(text("SELECT 1"))).scalar_one()


async def driver_of(database: Database) -> asyncpg.Connection:
    async with database.connection() as connection:
        assert isinstance(connection, asyncpg.Connection)
        return connection


async def test_first_use_connects_and_fails_without_a_server(postgres_settings, unused_tcp_port: int) -> None:
    database = Database(postgres_settings.model_copy(update={"port": unused_tcp_port}))
    with pytest.raises(DatabaseUnavailable, match="POSTGRES_HOST"):
        await driver_of(database)
    with pytest.raises(DatabaseUnavailable, match="POSTGRES_HOST"):
        await database.run_in_transaction(one)
    await database.close()


@pytest.mark.parametrize(
    ("change", "hint"),
    [({"db": "no_such_database"}, "POSTGRES_DB"), ({"user": "nobody_at_all"}, "POSTGRES_USER")],
)
async def test_rejected_connection_is_unavailable_and_names_the_setting(
    postgres_settings, change: dict[str, str], hint: str
) -> None:
    database = Database(postgres_settings.model_copy(update=change))
    with pytest.raises(DatabaseUnavailable, match=hint):
        await driver_of(database)
    with pytest.raises(DatabaseUnavailable, match=hint):
        await database.run_in_transaction(one)
    await database.close()


async def test_wrong_password_is_unavailable_and_not_shown(postgres_settings) -> None:
    wrong = SecretStr("a-password-that-must-not-leak")
    database = Database(postgres_settings.model_copy(update={"password": wrong}))
    with pytest.raises(DatabaseUnavailable, match="POSTGRES_PASSWORD") as refused:
        await driver_of(database)
    await database.close()
    assert wrong.get_secret_value() not in repr(refused.value.__cause__)
    assert wrong.get_secret_value() not in repr(database)


async def test_dead_pooled_connection_is_replaced_without_an_error(
    database: Database, superuser: asyncpg.Connection
) -> None:
    driver = await driver_of(database)
    await superuser.fetchval("SELECT pg_terminate_backend($1, 20000)", driver.get_server_pid())
    async with asyncio.timeout(WAIT_S):
        while not driver.is_closed():
            await superuser.fetchval("SELECT 1")
    assert await driver_of(database) is not driver
    assert await database.run_in_transaction(one) == 1


@pytest.mark.guarantee("G85")
async def test_restarted_server_is_used_again_by_the_same_process(
    postgres_server, database: Database
) -> None:
    assert await database.run_in_transaction(one) == 1
    await postgres_server.stop("immediate")
    try:
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable):
                await database.run_in_transaction(one)
            with pytest.raises(DatabaseUnavailable):
                await driver_of(database)
    finally:
        await postgres_server.start()
    assert await database.run_in_transaction(one) == 1
    assert not (await driver_of(database)).is_closed()


async def test_broken_connection_in_a_transaction_is_not_retried(
    database: Database, superuser: asyncpg.Connection
) -> None:
    attempts: list[int] = []

    async def cut(db: AsyncSession) -> None:
        attempts.append((await db.execute(text("SELECT pg_backend_pid()"))).scalar_one())
        await superuser.fetchval("SELECT pg_terminate_backend($1, 20000)", attempts[-1])
        await one(db)

    with pytest.raises(DatabaseUnavailable):
        await database.run_in_transaction(cut)
    assert len(attempts) == 1
