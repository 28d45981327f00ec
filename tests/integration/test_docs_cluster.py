"""The statements and the pgbouncer.ini of the pages about clusters and roles work."""

import asyncpg
from relaybox.db import Database
from relaybox.settings import PostgresSettings

from tests.fixtures.pgbouncer import StartPgBouncer
from tests.integration.test_docs_snippets import CLUSTER, ROLES
from tests.unit.test_docs import fences


async def test_limits_of_the_page_work_with_a_transaction_pooler(
    start_pgbouncer: StartPgBouncer, postgres_settings: PostgresSettings, database: Database
) -> None:
    [text] = fences(CLUSTER, "sql")
    async with database.connection() as connection:
        for statement in text.replace("DATABASE app", f'DATABASE "{postgres_settings.db}"').splitlines():
            await connection.fetch(statement)
    pooler = await start_pgbouncer("transaction")
    pooled = Database(pooler.settings(postgres_settings))
    async with pooled.connection() as connection:
        [row] = await connection.fetch("SHOW statement_timeout")
    assert row[0] == "15s"
    await pooled.close()


async def test_statements_of_the_page_restore_revoked_rights(
    postgres_settings: PostgresSettings, database: Database, superuser: asyncpg.Connection
) -> None:
    functions, temporary = (
        next(fences(ROLES, "sql")).replace("DATABASE app", f'DATABASE "{postgres_settings.db}"').splitlines()
    )
    revoked = functions.replace("GRANT", "REVOKE").replace("TO relaybox", "FROM PUBLIC")
    await superuser.execute(revoked)
    try:
        await superuser.execute(f'REVOKE TEMPORARY ON DATABASE "{postgres_settings.db}" FROM PUBLIC')
        await superuser.execute(functions)
        await superuser.execute(temporary)
        async with database.connection() as connection:
            await connection.fetch("SELECT pg_walfile_name(pg_current_wal_lsn()) FROM pg_control_system()")
            await connection.fetch("CREATE TEMPORARY TABLE granted ()")
    finally:
        await superuser.execute(functions.replace("GRANT", "REVOKE").replace("TO", "FROM"))
        await superuser.execute(functions.replace("TO relaybox", "TO PUBLIC"))
