"""The relay's own connections to PostgreSQL, and questions to it."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from relaybox.db import (
    INSUFFICIENT_PRIVILEGE,
    Database,
    DatabaseRefused,
    DatabaseUnavailable,
    DedicatedConnection,
    map_service_errors,
    sqlstate_of,
)

__all__ = ("connected", "explain_missing_right", "fetch_rows")


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


async def fetch_rows(connection: DedicatedConnection, query: str, *args: Any) -> Sequence[Mapping[str, Any]]:
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


@contextmanager
def explain_missing_right(right: str) -> Generator[None]:
    """Name *right*, which migrations cannot grant, if PostgreSQL refuses a statement for want of a right.

    Raises:
        DatabaseRefused: The server refused; the message says what a superuser has to grant.
    """
    try:
        yield
    except DatabaseRefused as refused:
        if refused.__cause__ is None or sqlstate_of(refused.__cause__) != INSUFFICIENT_PRIVILEGE:
            raise
        raise DatabaseRefused(f"{refused}; a relay needs {right}") from refused.__cause__
