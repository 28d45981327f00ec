"""Remove expired responses: claims in small transactions, bodies a whole slot at a time (G70)."""

import asyncio
import time
from dataclasses import dataclass
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge

from relaybox.db import Database, Executor
from relaybox.idempotency._service import QUERIES
from relaybox.periodic import PeriodicJob
from relaybox.retention import remove_old_records
from relaybox.settings import IdempotencySettings, RetentionSettings, load_settings

__all__ = ("SweepResult", "Sweeper", "sweep")

_log: Final = structlog.get_logger(__name__)
#: Claims per statement: 5 ms of work, without a lock on a live row.
_CLAIMS_MAX: Final = 1_000
_REST_S_MIN: Final = 0.02
_RESTS_PER_STEP: Final = 3
#: Steps and retries of emptying slots: over one round, and enough retries to find a slot without a reader.
_STEPS_MAX: Final = 32
_TRIES_MAX: Final = 20
#: Share of IDEMPOTENCY_TTL_H for which a slot is open: bodies are stored for the longest ttl in use and this
#: share at most. If a ttl is over three times as long, none of the four slots may be empty then: the open
#: slot stays open.
_SLOT_SHARE: Final = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepResult:
    """The result of a sweep."""

    claims: int
    #: Number of slots of bodies that were emptied.
    slots: int
    #: A transaction was reading a slot that is due; the next sweep empties it.
    busy: bool


async def sweep(db: Executor, settings: IdempotencySettings) -> SweepResult:
    """Delete all expired claims, and empty the slots in which all bodies have expired.

    Any number of processes may call it: one acts, the others return at once. *db* must not be in a
    transaction: each step is one, of at most 1,000 claims. It locks no live row and pauses for three times as
    long as it works, so that requests are hardly delayed.

    Raises:
        DatabaseUnavailable: PostgreSQL is unreachable.
        DatabaseBusy: the server cancelled a statement for its own limits.
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


class Sweeper(PeriodicJob):
    """Sweep periodically; every service runs one.

    It removes expired responses (:func:`sweep`), and old rows of the inbox, the tasks and the consumers
    (:func:`relaybox.retention.remove_old_records`).
    """

    def __init__(
        self,
        database: Database,
        registry: CollectorRegistry,
        settings: IdempotencySettings | None = None,
        *,
        retention: RetentionSettings | None = None,
    ) -> None:
        """Show figures in *registry*; read settings that are left out from the environment."""
        self._settings = settings or load_settings(IdempotencySettings)
        super().__init__(self._sweep, name="sweep", interval_s=self._settings.sweep_s)
        self._database = database
        self._retention = retention or load_settings(RetentionSettings)
        self._records = Gauge(
            "relaybox_idempotency_records",
            "Answers kept, as PostgreSQL's statistics know.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )
        self._removed = Counter(
            "relaybox_records_removed",
            "Old rows removed, by table; of idempotency_key: client keys removed from commands.",
            ["table"],
            registry=registry,
        )
        self._lag = Gauge(
            "relaybox_idempotency_expiry_lag_seconds",
            "Seconds for which the oldest expired answer has waited for its removal.",
            registry=registry,
            multiprocess_mode="mostrecent",
        )

    async def _sweep(self) -> None:
        async with self._database.connection() as connection:
            swept = await sweep(connection, self._settings)
            [standing] = await connection.fetch(QUERIES["standing"])
            self._records.set(standing["records"] or 0)
            self._lag.set(standing["lag_s"] or 0.0)
            if swept.claims or swept.slots:
                _log.debug("expired answers removed", claims=swept.claims, slots=swept.slots)
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
            "idempotency_key": removed.keys,
        }
        for table, count in counts.items():
            self._removed.labels(table=table).inc(count)
        if any(counts.values()):
            _log.debug("old rows removed", **counts)
