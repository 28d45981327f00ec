"""After the faults: wait until only poison is unpublished, then skip it as an operator does."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, TypeVar

from tests.faults.chaos._comparison import Row
from tests.faults.chaos._journal import Timeline
from tests.faults.chaos._servers import UNAVAILABLE_ERRORS, ChaosServers, Connection

T = TypeVar("T")
_PAUSE_S: Final = 0.25
_TABLES_S: Final = 300.0
_COUNT_S: Final = 60.0
#: Unpublished rows without FAILED poison before them. Rows that failed in an outage count too: relays retry
#: them without an operator (G25).
_OPEN: Final = """
    WITH poison AS (
        SELECT key, min(seq) AS seq FROM event_outbox
        WHERE status = 'FAILED' AND skipped_at IS NULL AND payload -> 'payload' ->> 'poison' = 'true'
        GROUP BY key
    )
    SELECT count(*) FROM event_outbox AS o LEFT JOIN poison ON poison.key = o.key
    WHERE (o.status = 'PENDING' OR (o.status = 'FAILED' AND o.skipped_at IS NULL))
      AND (poison.seq IS NULL OR o.seq < poison.seq)
"""
#: What `relaybox outbox skip` records on the row.
_SKIP: Final = """
    UPDATE event_outbox SET skipped_at = now()
    WHERE status = 'FAILED' AND skipped_at IS NULL AND payload -> 'payload' ->> 'poison' = 'true'
      AND key <> ALL ($1::text[])
    RETURNING key
"""
_ROWS: Final = """
    SELECT d.event_id, d.aggregate_id, d.aggregate_version, coalesce(o.seq, 0) AS seq,
           coalesce(o.status::text, 'MISSING') AS status, o.skipped_at IS NOT NULL AS skipped
    FROM domain_events AS d
    LEFT JOIN event_outbox AS o ON (o.payload ->> 'event_id')::uuid = d.event_id
    ORDER BY d.aggregate_id, d.aggregate_version
"""


async def retry_while_unavailable(
    servers: ChaosServers, ask: Callable[[Connection], Awaitable[T]], within_s: float
) -> T:
    """Retry *ask* until PostgreSQL is available; return its result.

    Raises:
        TimeoutError: No result within *within_s* seconds.
    """
    async with asyncio.timeout(within_s):
        while True:
            try:
                connection = await servers.connect()
                try:
                    return await ask(connection)
                finally:
                    connection.terminate()
            except UNAVAILABLE_ERRORS:
                await asyncio.sleep(_PAUSE_S)


async def count_unpublished(connection: Connection) -> int:
    """Return the number of unpublished rows that no poison blocks."""
    return await connection.fetchval(_OPEN, timeout=_COUNT_S)


async def skip_poison(servers: ChaosServers, but_of: Sequence[str], timeline: Timeline) -> int:
    """Skip FAILED poison except of keys *but_of*, as operators do; return the number of rows."""

    async def ask(connection: Connection) -> int:
        rows = await connection.fetch(_SKIP, but_of)
        for row in rows:
            timeline.note(f"skipped the head of {row['key']}")
        return len(rows)

    return await retry_while_unavailable(servers, ask, _TABLES_S)


async def wait_until_drained(servers: ChaosServers, stalled_s: float) -> float | None:
    """Wait until only poison and rows behind it are unpublished.

    Returns:
        The seconds; None if no row was published for *stalled_s* seconds.
    """
    began_s = fewer_s = time.monotonic()
    before = None
    while time.monotonic() - fewer_s < stalled_s:
        unpublished = await retry_while_unavailable(servers, count_unpublished, _TABLES_S)
        if not unpublished:
            return time.monotonic() - began_s
        if before is None or unpublished < before:
            before, fewer_s = unpublished, time.monotonic()
        await asyncio.sleep(_PAUSE_S)
    return None


async def fetch_rows(servers: ChaosServers) -> list[Row]:
    """Return every committed event with its outbox row, by key and version."""
    connection = await servers.connect()
    try:
        found = await connection.fetch(_ROWS, timeout=_TABLES_S)
    finally:
        connection.terminate()
    return [
        Row(
            key=row["aggregate_id"],
            version=row["aggregate_version"],
            event_id=row["event_id"],
            seq=row["seq"],
            status=row["status"],
            skipped=row["skipped"],
        )
        for row in found
    ]
