"""Remove expired responses: claims in small transactions, bodies by truncating a whole slot (G70).

A slot is one of four tables of response bodies, see docs/explanation/idempotency.md. New bodies are written
to the open slot; a closed slot is truncated after its last body has expired.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from relaybox.db import Database, Executor
from relaybox.idempotency._service import QUERIES
from relaybox.periodic import ScheduleMetrics, SharedJob
from relaybox.retention import remove_old_records
from relaybox.settings import IdempotencySettings, RetentionSettings, load_settings

__all__ = ("SweepResult", "Sweeper", "sweep")

_log: Final = structlog.get_logger(__name__)
#: Claims that one statement deletes: 5 ms of work, which locks only expired rows.
_CLAIMS_MAX: Final = 1_000
#: Shortest pause in seconds after a statement. After a deletion of claims, the pause is three times the
#: duration of the deletion if that is longer.
_REST_S_MIN: Final = 0.02
_RESTS_PER_STEP: Final = 3
#: Maximum number of calls of the query ``retain_bodies`` in one sweep; all four slots need fewer calls.
_STEPS_MAX: Final = 32
#: Maximum number of attempts of one sweep to truncate a slot that a transaction is reading.
_TRIES_MAX: Final = 20
#: Share of IDEMPOTENCY_TTL_H for which a slot is open. A slot is truncated after its last body has expired,
#: so an expired body can remain stored for this share of IDEMPOTENCY_TTL_H. If the ttl of an endpoint is more
#: than three times as long as a slot is open, the three other slots may all contain bodies when the open slot
#: should be closed. The open slot then stays open until one of the others is empty.
_SLOT_SHARE: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepResult:
    """The result of a sweep."""

    #: Number of deleted claims, the rows of ``idempotency_cache``.
    claims: int
    #: Number of truncated slots, the tables of response bodies.
    slots: int
    #: Whether a slot could not be truncated because a transaction was reading it; the next sweep tries again.
    busy: bool


async def sweep(db: Executor, settings: IdempotencySettings) -> SweepResult:
    """Delete expired claims (rows of ``idempotency_cache``); truncate slots whose bodies have all expired.

    A slot is one of four tables of response bodies.

    Several processes may sweep at the same time: while one of them executes a statement, the others skip that
    part of their sweep. Requests are hardly delayed: a sweep locks only expired claims, and slots in which
    all bodies have expired. After each deletion of 1,000 claims the sweep pauses for three times the
    deletion's duration, at least 20 ms.

    Args:
        db: A connection in autocommit mode: each statement, such as the deletion of 1,000 claims, is a
            transaction.
        settings: Settings; ``ttl_h`` determines for how long a slot is open.

    Raises:
        DatabaseUnavailable: PostgreSQL is unreachable.
        DatabaseBusy: PostgreSQL cancelled a statement because of a time limit.
    """
    claims = 0
    while removed := await _removed(db):
        claims += removed
        if removed < _CLAIMS_MAX:
            break
    slots, tries, step = 0, 0, None
    for _ in range(_STEPS_MAX):
        [row] = await db.fetch(QUERIES["retain_bodies"], settings.ttl_h * 3_600 * _SLOT_SHARE)
        step = row["step"]
        slots += step == "emptied"
        tries += step == "busy"
        if step is None or tries == _TRIES_MAX:
            break
        await asyncio.sleep(_REST_S_MIN)
    return SweepResult(claims=claims, slots=slots, busy=step == "busy")


async def _removed(db: Executor) -> int:
    began_s = time.monotonic()
    [row] = await db.fetch(QUERIES["expire"], _CLAIMS_MAX)
    if row["removed"] == _CLAIMS_MAX:
        await asyncio.sleep(max(_REST_S_MIN, _RESTS_PER_STEP * (time.monotonic() - began_s)))
    return row["removed"]


class Sweeper(SharedJob):
    """Remove expired and old rows every ``IDEMPOTENCY_SWEEP_S``; create one object per service.

    Each time, one of the services does the work. For its metrics, every service measures the number of stored
    responses and all schedules (:class:`relaybox.periodic.ScheduleMetrics`).

    The work is to remove expired responses (:func:`sweep`), and rows that are older than their time in
    ``RETENTION_*``: ended commands, tasks and flows, records of consumed events, events kept for flows, and
    resolved dead letters (:func:`relaybox.retention.remove_old_records`). In the rows of commands, the
    client's idempotency key is removed after ``IDEMPOTENCY_TTL_H``.
    """

    def __init__(
        self,
        database: Database,
        registry: CollectorRegistry,
        settings: IdempotencySettings | None = None,
        *,
        retention: RetentionSettings | None = None,
    ) -> None:
        """Register metrics in *registry*; settings that are None are read from the environment."""
        self._settings = settings or load_settings(IdempotencySettings)
        super().__init__(
            self._sweep,
            name="relaybox.sweep",
            interval_s=self._settings.sweep_s,
            database=database,
            observe=self._measure,
        )
        self._retention = retention or load_settings(RetentionSettings)
        self._schedules = ScheduleMetrics(registry)
        self._records = Gauge(
            "relaybox_idempotency_records",
            "Number of stored responses, as estimated by PostgreSQL's statistics.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._removed = Counter(
            "relaybox_records_removed",
            "Old rows removed, by table; idempotency_key: client keys removed from commands.",
            ["table"],
            registry=registry,
        )
        self._lag = Gauge(
            "relaybox_idempotency_expiry_lag_seconds",
            "Seconds for which the oldest expired response has waited for its removal.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    async def _measure(self) -> None:
        async with self._database.connection() as connection:
            [standing] = await connection.fetch(QUERIES["standing"])
            self._records.set(standing["records"] or 0)
            self._lag.set(standing["lag_s"] or 0.0)
            await self._schedules.measure(connection)

    async def _sweep(self) -> None:
        async with self._database.connection() as connection:
            swept = await sweep(connection, self._settings)
            if swept.claims or swept.slots:
                _log.debug("expired responses removed", claims=swept.claims, slots=swept.slots)
            await self._remove_old(connection)

    async def _remove_old(self, connection: Executor) -> None:
        removed = await remove_old_records(
            connection,
            self._retention,
            key_ttl_h=self._settings.ttl_h,
            should_continue=lambda: not self.stopping,
        )
        counts = {
            "command_inbox": removed.commands,
            "async_tasks": removed.tasks,
            "consumed_events": removed.consumed_events,
            "dead_letters": removed.dead_letters,
            "flow_resume_handles": removed.flow_handles,
            "flow_events": removed.flow_events,
            "flow_event_keys": removed.flow_event_keys,
            "idempotency_key": removed.keys,
        }
        for table, count in counts.items():
            self._removed.labels(table=table).inc(count)
        if any(counts.values()):
            _log.debug("old rows removed", **counts)
