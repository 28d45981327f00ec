"""Compare events with records, in temporary tables of one PostgreSQL connection."""

from collections.abc import AsyncGenerator, Generator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg
from pydantic_core import from_json

from relaybox.db import Database, DatabaseUnavailable, load_queries, map_database_errors, sqlstate_of
from relaybox.outbox import source_of
from relaybox.settings import PostgresSettings
from relaybox.verify._errors import TablesUnreadable
from relaybox.verify._records import Partition, TopicRecord
from relaybox.verify._report import Example, Finding, Kind, Tally

__all__ = ("CLOCKS_DIFFER", "Horizon", "PossibleLoss", "Snapshot", "Tables", "map_table_errors")

_SQL: Final = load_queries(__package__ or "relaybox.verify", "verify.sql")
#: Statement timeout: one hour, because the statements of a verification read and sort whole tables.
_STATEMENT_MS: Final = 3_600_000
_KEYS_PAGE: Final = 50_000
_EXAMPLES_MAX: Final = 3
CLOCKS_DIFFER: Final = timedelta(minutes=5)
"""Largest assumed difference between the clock of PostgreSQL and that of a service or relay."""
#: SQLSTATEs: insufficient privilege; undefined table or column; read-only transaction.
_INSUFFICIENT_PRIVILEGE: Final = "42501"
_NO_SCHEMA: Final = frozenset({"42P01", "42703"})
_READ_ONLY: Final = "25006"

#: Topic, key (empty for rows without a key), time of the oldest record that the key's partition retains.
Horizon = tuple[str, str, datetime]


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """Summary of the events that were copied from the tables."""

    #: Topics that the copied outbox rows name.
    topics: frozenset[str]
    #: Number of copied events to verify: those written since the requested time, or all.
    events: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PossibleLoss:
    """Conditions by which events that PostgreSQL lost in a failover or restore are recognised.

    An event on a topic that is not in the tables counts as lost by PostgreSQL if it meets all conditions.
    """

    #: The event's ``ce_source`` is one of these: a service of this database wrote the event.
    sources: frozenset[str]
    #: The event was not written before this time, because retention or an operator may have removed the rows
    #: of older events, or because the verification begins at this time. None: no limit.
    since: datetime | None
    #: The event was not written after this time, because a failover or restore loses only earlier events.
    until: datetime


class Tables:
    """A connection with temporary tables, which PostgreSQL drops when the connection is closed."""

    def __init__(self, connection: Any, started_at: datetime) -> None:
        self._connection = connection
        #: Time by PostgreSQL's clock when the connection was opened; events that were committed before this
        #: time are in the snapshot.
        self.started_at = started_at

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: PostgresSettings) -> AsyncGenerator["Tables"]:
        """Connect and create the temporary tables.

        Raises:
            TablesUnreadable: This role has no right to create temporary tables, or the server is a standby.
            DatabaseUnavailable: PostgreSQL is unreachable.
        """
        long_statements = settings.model_copy(update={"statement_timeout_ms": _STATEMENT_MS})
        database = Database(long_statements, application_name="relaybox-verify")
        connection: Any = await database.dedicated()
        try:
            with map_table_errors():
                [session] = await connection.fetch(_SQL["configure_session"])
                for name in ("create_events", "create_records", "create_findings", "create_horizons"):
                    await connection.fetch(_SQL[name])
            yield cls(connection, session["at"])
        finally:
            connection.terminate()
            await database.close()

    async def take_snapshot(self, key: str | None, since: datetime | None) -> Snapshot:
        """Copy the events of ``domain_events`` and ``event_outbox`` as of one snapshot.

        Args:
            key: Copy only events of this key; None for all keys.
            since: Verify only events written since this time; None: all events. Earlier events are copied
                too, because the order of the verified events is compared with them.

        Raises:
            TablesUnreadable: The tables do not exist, or this role has no right to read them.
        """
        await self._fetch("take_snapshot", key, since)
        await self._fetch("analyze_events")
        [row] = await self._fetch("describe_snapshot")
        return Snapshot(topics=frozenset(row["topics"]), events=row["events"])

    async def possible_loss(self, since: datetime | None) -> PossibleLoss | None:
        """Return how to recognise events that PostgreSQL lost; None if there was no failover or restore.

        Call this after :meth:`take_snapshot`: otherwise, events that retention removes between the two calls
        count as lost.

        Args:
            since: Recognise only events written since this time; None: all events.
        """
        rows = await self._fetch("possible_loss")
        if not rows:
            return None
        [row] = rows
        kept_since = None if row["since"] is None else row["since"] + CLOCKS_DIFFER
        return PossibleLoss(
            sources=frozenset(source_of(service) for service in row["services"] or ()),
            since=max((at for at in (kept_since, since) if at is not None), default=None),
            until=row["until"] + CLOCKS_DIFFER,
        )

    async def add(self, records: Sequence[TopicRecord]) -> None:
        """Add records of the topics to the temporary table of records."""
        with map_table_errors():
            await self._connection.copy_records_to_table("verify_records", records=records)

    async def compare(self, ends: Mapping[Partition, int], loss: PossibleLoss | None) -> None:
        """Compare the added records with the snapshot, and add the deviations to the table of findings.

        Args:
            ends: End offsets of partitions before the snapshot. A record whose event is not in the tables is
                reported only if it is in one of these partitions and before this offset: the event of a later
                record may have been committed after the snapshot.
            loss: How to recognise events that PostgreSQL lost; None if there was no failover or restore.
        """
        await self._fetch("analyze_records")
        topics = [topic for topic, _ in ends]
        partitions = [partition for _, partition in ends]
        since, until = (loss.since, loss.until) if loss is not None else (None, None)
        await self._fetch("find_duplicated")
        await self._fetch("find_spread")
        await self._fetch("find_reordered_and_unknown", topics, partitions, list(ends.values()), since, until)
        await self._fetch("find_missing")

    async def keys_with_lost_events(self) -> AsyncGenerator[list[str]]:
        """Yield the keys of events classified as lost, in sorted pages of at most 50,000 keys."""
        last: str | None = None
        while page := [row["key"] for row in await self._fetch("keys_with_lost_events", last, _KEYS_PAGE)]:
            yield page
            last = page[-1]

    async def add_horizons(self, horizons: Iterable[Horizon]) -> None:
        """Store *horizons*: for a topic and a key, the time of the oldest record in the key's partition."""
        with map_table_errors():
            await self._connection.copy_records_to_table("verify_horizons", records=list(horizons))

    async def set_aside_expired(self) -> None:
        """Reclassify lost events as beyond retention if older than the oldest record of their partition."""
        await self._fetch("set_aside_expired")

    async def tallies(self) -> tuple[dict[Kind, Tally], int]:
        """Return a tally of each kind, and the number of surplus records of duplicated events."""
        rows = {row["kind"]: row for row in await self._fetch("tally")}
        found = {
            kind: Tally(events=rows[kind]["events"], keys=rows[kind]["keys"]) if kind in rows else Tally()
            for kind in Kind
        }
        return found, rows[Kind.DUPLICATED]["duplicates"] if Kind.DUPLICATED in rows else 0

    async def findings(self, keys_max: int) -> tuple[Finding, ...]:
        """Return findings of the first *keys_max* keys of each kind."""
        rows = await self._fetch("show_findings", keys_max, _EXAMPLES_MAX)
        order = {kind.value: position for position, kind in enumerate(Kind)}
        return tuple(_finding(row) for row in sorted(rows, key=lambda row: order[row["kind"]]))

    async def _fetch(self, name: str, *args: Any) -> Sequence[Mapping[str, Any]]:
        with map_table_errors():
            return await self._connection.fetch(_SQL[name], *args)


def _finding(row: Mapping[str, Any]) -> Finding:
    return Finding(
        kind=Kind(row["kind"]),
        topic=row["topic"],
        key=row["key"],
        events=row["events"],
        examples=tuple(Example(**example) for example in from_json(row["examples"])),
    )


@contextmanager
def map_table_errors() -> Generator[None]:
    """Map errors of PostgreSQL in the ``with`` block to errors of Relaybox.

    Raises:
        TablesUnreadable: The tables do not exist, or this role lacks a right; the message has the repair.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    try:
        with map_database_errors():
            yield
    except asyncpg.PostgresError as error:
        raise _unreadable(error) from error
    except OSError as error:
        raise DatabaseUnavailable(
            f"the connection to PostgreSQL failed: {error}; check the server and the network"
        ) from error


def _unreadable(error: asyncpg.PostgresError) -> Exception:
    state = sqlstate_of(error)
    if state == _INSUFFICIENT_PRIVILEGE:
        remedy = (
            "connect as the services' role, or GRANT SELECT on the tables, TEMPORARY on the database and "
            "EXECUTE on pg_control_system(), pg_current_wal_lsn() and pg_walfile_name(pg_lsn)"
        )
    elif state in _NO_SCHEMA:
        remedy = "run relaybox migrate up, or check POSTGRES_DB"
    elif state == _READ_ONLY:
        remedy = "a standby has no temporary tables; connect to the primary server"
    else:
        return error
    return TablesUnreadable(f"PostgreSQL rejects access to the tables of Relaybox: {error}; {remedy}")
