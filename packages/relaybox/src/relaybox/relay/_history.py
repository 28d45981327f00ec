"""The relay's connections to PostgreSQL, all of them to one history of the server (G35)."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from relaybox.db import Database, DedicatedConnection, load_queries
from relaybox.relay._ask import connected, explain_missing_right, fetch_rows
from relaybox.relay._errors import HistoryChanged

__all__ = ("Connections",)

_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
#: Every role has it unless it was revoked.
_RIGHT: Final = (
    "EXECUTE on the functions pg_control_system(), pg_current_wal_lsn() and pg_walfile_name(pg_lsn)"
)


class Connections:
    """Opens connections, and refuses one to a server in another history than that of the first.

    A history is a system identifier and a timeline. It changes when a standby is promoted or a backup is
    restored: commits may be missing then, and sequence numbers and epochs come a second time, so nothing that
    was learnt over an earlier connection may be used over a later one. The history of a server cannot change
    while a connection to it is open.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        #: Name and id of the history; None before the first connection.
        self._history: tuple[str, UUID] | None = None

    @property
    def schema_name(self) -> str:
        """The schema of the tables."""
        return self._database.settings.schema_name

    @property
    def history_id(self) -> UUID:
        """The id of the history; there was a connection before."""
        assert self._history is not None
        return self._history[1]

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[DedicatedConnection]:
        """Open a connection of the relay's own, for an ``async with`` block.

        Raises:
            DatabaseUnavailable: PostgreSQL is away, or takes no writes.
            DatabaseRefused: A right or a migration is missing.
            HistoryChanged: The server is in another history.
        """
        async with connected(self._database) as connection:
            await self._confirm(connection)
            yield connection

    async def _confirm(self, connection: DedicatedConnection) -> None:
        with explain_missing_right(_RIGHT):
            [row] = await fetch_rows(connection, _SQL["confirm_history"])
            if row["history_id"] is None:  # another relay noted the history meanwhile
                [row] = await fetch_rows(connection, _SQL["confirm_history"])
        history = (row["history"], row["history_id"])
        if self._history is None:
            self._history = history
        elif history != self._history:
            raise HistoryChanged(
                f"PostgreSQL was in history {self._history[0]} (system identifier/timeline) and now is in "
                f"{history[0]}: a standby was promoted or a backup restored; run relaybox verify"
            )
