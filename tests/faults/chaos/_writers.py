"""Write transactions over several keys with consecutive versions, and record every result."""

import asyncio
import random
import secrets
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, Final

import asyncpg

from tests.faults.chaos._journal import CommitResult, Event, Journal, Timeline
from tests.faults.chaos._servers import MISSING_TOPIC, TOPIC, TOPIC_BYTES_MAX, UNAVAILABLE_ERRORS, Connection

#: A complete event of the product. domain_events refuses a repeated version, so a delayed statement cannot
#: commit after its repetition.
_WRITE: Final = """
    WITH sent AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::int[], $4::bool[], $5::text[], $6::text[])
            WITH ORDINALITY AS event (event_id, key, version, poison, topic, text, place)
    ), events AS (
        INSERT INTO domain_events (event_id, correlation_id, event_type, aggregate_type, aggregate_id,
                                   aggregate_version, payload, metadata)
        SELECT event_id, event_id, $7, 'GENESIS_SESSION', key, version, '{}', '{}'
        FROM sent
    )
    INSERT INTO event_outbox (topic, key, payload)
    SELECT topic, key, jsonb_build_object(
        'event_id', event_id, 'event_type', $7::text, 'event_version', 1,
        'aggregate_type', 'GENESIS_SESSION', 'aggregate_id', key, 'correlation_id', event_id,
        'causation_id', NULL, 'timestamp', now(), 'version', version,
        'payload', jsonb_build_object('text', text, 'poison', poison),
        'metadata', jsonb_build_object('source_service', 'chaos'))
    FROM sent ORDER BY place
"""
_VERSIONS: Final = """
    SELECT aggregate_id AS key, max(aggregate_version) AS version FROM domain_events
    WHERE aggregate_id = ANY ($1::text[]) GROUP BY 1
"""
_NOTIFY: Final = "SELECT pg_notify('relaybox_outbox', '')"
_KEYS_MAX: Final = 5
_EVENTS_PER_KEY_MAX: Final = 3
_TEXT_CHARS: Final = (20, 900)
#: Share of transactions that stay open, so that later sequence numbers commit first (G22), or roll back.
_SLOW_SHARE: Final = 0.1
_SLOW_S: Final = (0.02, 0.5)
_ROLLED_BACK_SHARE: Final = 0.02
#: The remaining transactions rely on polling, as after a lost notification.
_NOTIFIED_SHARE: Final = 0.8
_AWAY_PAUSE_S: Final = 0.2
#: SQLSTATE classes after which the commit may have taken place or not.
_OPEN: Final = ("08", "57")

Connect = Callable[[], Awaitable[Connection]]


class Poison(Enum):
    """Why an event cannot be published."""

    TOO_LARGE = auto()
    MISSING_TOPIC = auto()


class _RolledBack(Exception):
    """Raised to roll a transaction back on purpose."""


class Writer:
    """Writes events of its own keys at up to *per_s* events a second.

    After a missing response the writer reads the committed versions and continues after them, as a client
    that decides again.
    """

    def __init__(
        self,
        name: str,
        keys: Sequence[str],
        connect: Connect,
        *,
        journal: Journal,
        timeline: Timeline,
        seed: int,
        event_type: str = "Genesis.Session.Renamed",
    ) -> None:
        """Describe the writer; nothing connects before its first transaction."""
        self.name = name
        self.keys = tuple(keys)
        self._connect = connect
        self._event_type = event_type
        self._journal = journal
        self._timeline = timeline
        self._rng = random.Random(f"{seed} {name}")
        self._connection: Connection | None = None
        #: Last committed version by key; None when it must be read first.
        self._versions: dict[str, int] | None = None
        self._poison: list[tuple[str, Poison]] = []

    def poison(self, key: str, kind: Poison) -> None:
        """Add an unpublishable event of *key* to the next transaction."""
        self._poison.append((key, kind))

    async def run(self, until: asyncio.Event, *, per_s: float) -> None:
        """Write about *per_s* events a second until *until* is set."""
        mean = (1 + _KEYS_MAX) / 2 * (1 + _EVENTS_PER_KEY_MAX) / 2
        while not until.is_set():
            await self.write(self._some_keys())
            with suppress(TimeoutError):
                await asyncio.wait_for(until.wait(), self._rng.expovariate(per_s / mean))

    async def write(self, keys: Sequence[tuple[str, int]]) -> list[Event] | None:
        """Write events, given as (key, count); return them if the commit was acknowledged, else None."""
        try:
            connection = await self._connected()
        except UNAVAILABLE_ERRORS:
            await self._lose_connection()
            await asyncio.sleep(_AWAY_PAUSE_S)
            return None
        events, topics, texts = self._compose(keys)
        self._journal.record_sent(events)
        answer = await self._send(connection, events, topics, texts)
        self._journal.record_result(events, answer)
        if answer is not CommitResult.ACKNOWLEDGED:
            self._versions = None
            return None
        assert self._versions is not None
        self._versions |= {one.key: one.version for one in events}
        return events

    async def close(self) -> None:
        """Close the connection."""
        await self._lose_connection()

    async def _connected(self) -> Connection:
        connection = self._connection
        if connection is None or connection.is_closed():
            connection = self._connection = await self._connect()
            self._versions = None
        if self._versions is None:
            rows = await connection.fetch(_VERSIONS, self.keys)
            self._versions = dict.fromkeys(self.keys, 0) | {row["key"]: row["version"] for row in rows}
        return connection

    def _some_keys(self) -> list[tuple[str, int]]:
        chosen = self._rng.sample(self.keys, self._rng.randint(1, min(_KEYS_MAX, len(self.keys))))
        return [(key, self._rng.randint(1, _EVENTS_PER_KEY_MAX)) for key in chosen]

    def _compose(self, keys: Sequence[tuple[str, int]]) -> tuple[list[Event], list[str], list[str]]:
        assert self._versions is not None
        poison, self._poison = dict(self._poison), []
        # In a fixed order, to avoid deadlocks between statements.
        wanted = sorted((dict(keys) | dict.fromkeys(poison, 1)).items())
        events: list[Event] = []
        topics: list[str] = []
        texts: list[str] = []
        for key, count in wanted:
            for version in range(self._versions[key] + 1, self._versions[key] + count + 1):
                kind = poison.get(key)
                event = Event(event_id=uuid.uuid4(), key=key, version=version, poison=kind is not None)
                events.append(event)
                topics.append(MISSING_TOPIC if kind is Poison.MISSING_TOPIC else TOPIC)
                # Incompressible text.
                texts.append(
                    secrets.token_hex(TOPIC_BYTES_MAX)
                    if kind is Poison.TOO_LARGE
                    else "x" * self._rng.randint(*_TEXT_CHARS)
                )
        return events, topics, texts

    async def _send(
        self, connection: Connection, events: Sequence[Event], topics: list[str], texts: list[str]
    ) -> CommitResult:
        rows = zip(*((one.event_id, one.key, one.version, one.poison) for one in events), strict=True)
        try:
            await self._in_transaction(connection, (*rows, topics, texts, self._event_type))
        except _RolledBack:
            return CommitResult.REFUSED
        except asyncpg.PostgresError as error:
            await self._lose_connection()
            answer = CommitResult.UNKNOWN if _sqlstate(error).startswith(_OPEN) else CommitResult.REFUSED
            self._timeline.note(f"{self.name}: {answer}, {type(error).__name__}")
            return answer
        except UNAVAILABLE_ERRORS as error:
            await self._lose_connection()
            self._timeline.note(f"{self.name}: {CommitResult.UNKNOWN}, {type(error).__name__}")
            return CommitResult.UNKNOWN
        return CommitResult.ACKNOWLEDGED

    async def _in_transaction(self, connection: Connection, rows: tuple[Any, ...]) -> None:
        draw = self._rng.random()
        if draw >= _SLOW_SHARE:
            await connection.execute(_WRITE, *rows)
        else:
            async with connection.transaction():
                await connection.execute(_WRITE, *rows)
                await asyncio.sleep(self._rng.uniform(*_SLOW_S))
                if draw < _ROLLED_BACK_SHARE:
                    raise _RolledBack
        if self._rng.random() < _NOTIFIED_SHARE:
            with suppress(*UNAVAILABLE_ERRORS):
                await connection.execute(_NOTIFY)  # only a hint; the events are committed

    async def _lose_connection(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()


def _sqlstate(error: asyncpg.PostgresError) -> str:
    return getattr(error, "sqlstate", None) or ""
