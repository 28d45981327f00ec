"""The relay's own connections to PostgreSQL, and questions with an end to the waiting."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from relaybox.db import Database, DatabaseUnavailable, DedicatedConnection, map_database_errors

__all__ = ("ask", "connected")

#: Above the server's own statement_timeout: only a server that has fallen silent takes longer.
_ANSWER_S: Final = 20.0


@asynccontextmanager
async def connected(database: Database) -> AsyncGenerator[DedicatedConnection]:
    """A connection outside the pool: its settings and its LISTEN are nobody else's, and end with it.

    Raises:
        DatabaseUnavailable: PostgreSQL is away.
    """
    connection = await database.dedicated()
    try:
        yield connection
    finally:
        connection.terminate()


async def ask(connection: DedicatedConnection, query: str, *args: Any) -> Sequence[Mapping[str, Any]]:
    """Run *query*; a server that does not answer costs the connection, not the relay.

    Raises:
        DatabaseUnavailable: no answer within 20 s, or the connection broke.
        DatabaseBusy: the server cancelled it, for a lock or its own limits.
        RetryTransaction: it lost a race; ask again.
    """
    try:
        with map_database_errors():
            async with asyncio.timeout(_ANSWER_S):
                return await connection.fetch(query, *args)
    except (TimeoutError, OSError) as error:
        raise DatabaseUnavailable("PostgreSQL does not answer; check the server and the network") from error
