"""The relay's own connections to PostgreSQL, and questions to it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from relaybox.db import Database, DatabaseUnavailable, DedicatedConnection, map_service_errors

__all__ = ("ask", "connected")


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
    """Run *query*, which ends within the connection's own limits.

    Raises:
        DatabaseUnavailable: no answer in time, or the connection broke.
        DatabaseBusy: the server cancelled it, for a lock or its own limits.
        RetryTransaction: it lost a race; ask again.
        DatabaseRefused: the server refuses it for another reason.
    """
    try:
        with map_service_errors():
            return await connection.fetch(query, *args)
    except OSError as error:
        raise DatabaseUnavailable("PostgreSQL does not answer; check the server and the network") from error
