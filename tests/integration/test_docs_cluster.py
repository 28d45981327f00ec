"""The page about clusters works: its statements and its pgbouncer.ini."""

from relaybox.db import Database
from relaybox.settings import PostgresSettings

from tests.fixtures.pgbouncer import StartPgBouncer
from tests.integration.test_docs_snippets import CLUSTER
from tests.unit.test_docs import fences


async def test_limits_of_the_page_let_a_transaction_pooler_work(
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
