"""After the faults: all that can be published is, poison alone waits, an operator's skip frees its key."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from tests.faults.chaos._journal import Timeline
from tests.faults.chaos._stage import AWAY, Connection, Stage
from tests.faults.chaos._verdict import Row

T = TypeVar("T")
_PAUSE_S: Final = 0.25
_TABLES_S: Final = 300.0
#: Rows that nothing holds back: neither sent nor behind a FAILED one of their key, nor such a one themselves.
_OPEN: Final = """
    WITH heads AS (
        SELECT key, min(seq) AS seq FROM event_outbox
        WHERE status = 'FAILED' AND skipped_at IS NULL GROUP BY key
    )
    SELECT count(*) FROM event_outbox AS o LEFT JOIN heads ON heads.key = o.key
    WHERE o.status = 'PENDING' AND (heads.seq IS NULL OR o.seq < heads.seq)
"""
_FAILED: Final = """
    SELECT payload ->> 'event_id' AS event_id, key, error_data FROM event_outbox
    WHERE status = 'FAILED' AND skipped_at IS NULL
"""
#: What `relaybox outbox skip` records on the row; the topic's limit is known to be the only reason here.
_SKIP: Final = """
    UPDATE event_outbox SET skipped_at = now()
    WHERE status = 'FAILED' AND skipped_at IS NULL AND payload ->> 'event_id' = ANY ($1::text[]) RETURNING key
"""
_ROWS: Final = """
    SELECT d.event_id, d.aggregate_id, d.aggregate_version, coalesce(o.seq, 0) AS seq,
           coalesce(o.status::text, 'MISSING') AS status, o.skipped_at IS NOT NULL AS skipped
    FROM domain_events AS d
    LEFT JOIN event_outbox AS o ON (o.payload ->> 'event_id')::uuid = d.event_id
    ORDER BY d.aggregate_id, d.aggregate_version
"""


async def persistently(stage: Stage, ask: Callable[[Connection], Awaitable[T]], within_s: float) -> T:
    """What *ask* finds, however often PostgreSQL is away meanwhile.

    Raises:
        TimeoutError: not within *within_s* seconds.
    """
    async with asyncio.timeout(within_s):
        while True:
            try:
                connection = await stage.connect()
                try:
                    return await ask(connection)
                finally:
                    connection.terminate()
            except AWAY:
                await asyncio.sleep(_PAUSE_S)


async def unpublished(connection: Connection) -> int:
    """How many rows nothing holds back and nobody has published yet."""
    return await connection.fetchval(_OPEN)


async def skip(stage: Stage, event_ids: list[str], timeline: Timeline) -> int:
    """Skip those of *event_ids* that have FAILED, as an operator would; returns how many those were."""

    async def ask(connection: Connection) -> int:
        rows = await connection.fetch(_SKIP, event_ids)
        for row in rows:
            timeline.note(f"skipped the head of {row['key']}")
        return len(rows)

    return await persistently(stage, ask, _TABLES_S)


async def failed(stage: Stage) -> list[Any]:
    """Rows that wait for an operator: ``event_id``, ``key``, ``error_data``."""
    return await persistently(stage, lambda connection: connection.fetch(_FAILED), _TABLES_S)


async def drained(stage: Stage, within_s: float) -> float | None:
    """Wait until nothing is open but what waits behind a FAILED row; seconds it took, None if it did not."""
    began_s = time.monotonic()
    while time.monotonic() - began_s < within_s:
        if not await persistently(stage, unpublished, _TABLES_S):
            return time.monotonic() - began_s
        await asyncio.sleep(_PAUSE_S)
    return None


async def all_rows(stage: Stage) -> list[Row]:
    """Every committed event with its outbox row, by key and version."""
    connection = await stage.connect()
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
