"""The pool of test databases: a reused database equals the template; any other is dropped."""

import asyncpg
import pytest
from relaybox.db import BACKBONE
from relaybox.local import LocalPostgres
from relaybox.testing import Databases, superuser_of

LINES = (BACKBONE,)
LEFT = """
    SELECT (SELECT count(*) FROM aggregate_snapshots)
        + (SELECT count(*) FROM pg_sequence WHERE pg_sequence_last_value(seqrelid) IS NOT NULL)
"""


async def changed(server: LocalPostgres, name: str, *statements: str) -> int:
    """Change the database as a test does, and return its id."""
    connection = await superuser_of(server, name)
    try:
        for statement in statements:
            await connection.execute(statement.format(name))
        return await connection.fetchval("SELECT oid FROM pg_database WHERE datname = current_database()")
    finally:
        await connection.close()


async def test_database_is_reset_under_another_name(postgres_server: LocalPostgres) -> None:
    databases = Databases(postgres_server)
    first = await databases.acquire(LINES)
    oid = await changed(
        postgres_server,
        first,
        "INSERT INTO aggregate_snapshots (id, aggregate_type, owner, state)"
        " VALUES (gen_random_uuid(), 'A', 'ann', '{{}}')",
        "SELECT nextval(seqrelid::regclass) FROM pg_sequence",
    )
    await databases.release(LINES, first)
    second = await databases.acquire(LINES)
    assert (first != second, await changed(postgres_server, second)) == (True, oid)
    connection = await superuser_of(postgres_server, second)
    left = await connection.fetchval(LEFT)
    await connection.close()
    assert left == 0
    await databases.release(LINES, second)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE left_behind (id int)",
        "ALTER TABLE aggregate_snapshots ADD CHECK (version < 9)",
        'REVOKE TEMPORARY ON DATABASE "{}" FROM PUBLIC',
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        "ALTER DATABASE \"{}\" SET lock_timeout = '1s'",
    ],
)
async def test_changed_database_is_dropped(postgres_server: LocalPostgres, statement: str) -> None:
    databases = Databases(postgres_server)
    name = await databases.acquire(LINES)
    await changed(postgres_server, name, statement)
    await databases.release(LINES, name)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await superuser_of(postgres_server, name)


async def test_database_with_connections_is_dropped(
    postgres_server: LocalPostgres,
) -> None:
    databases = Databases(postgres_server)
    name = await databases.acquire(LINES)
    left = await superuser_of(postgres_server, name)
    await databases.release(LINES, name)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await superuser_of(postgres_server, name)
    left.terminate()
