"""Periodic work beside publishing: removing old rows and measuring the backlog."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from relaybox.db import Database
from relaybox.errors import RelayboxError
from relaybox.outbox import RetentionStep, retain
from relaybox.relay._errors import HistoryChanged
from relaybox.relay._floor import LowWatermark
from relaybox.relay._history import Connections
from relaybox.relay._rows import measure_backlog, use_partial_indexes
from relaybox.relay._statistics import Counters
from relaybox.telemetry import traceback_of

__all__ = ("Maintenance",)

#: Slots of the outbox live for hours; one step is one statement.
_RETENTION_PAUSE_S: Final = 60.0
#: With a short retention steps are more frequent: so many in the life of a slot.
_STEPS_PER_SLOT: Final = 50
_FAILED: Final = "relay maintenance failed, trying again"
_log = structlog.get_logger(__name__)


class Maintenance:
    """Remove SENT rows that are old enough, and keep the figures of the backlog up to date.

    Invariant: nothing that goes wrong here ends the relay or delays a heartbeat. Each task has a
    connection of its own, and repeats after any error; ``maintenance_failures_total`` counts those.
    """

    def __init__(
        self,
        database: Database,
        connections: Connections,
        counters: Counters,
        low_watermark: LowWatermark,
        *,
        keep_h: float,
        measure_s: float,
    ) -> None:
        """Keep SENT rows for *keep_h* hours, and measure the backlog every *measure_s* seconds."""
        self._database = database
        self._connections = connections
        self._counters = counters
        self._low_watermark = low_watermark
        self._keep_h = keep_h
        self._measure_s = measure_s

    async def remove_old_rows(self) -> None:
        """Remove SENT rows for ever; ends by cancellation only."""
        pause_s = min(_RETENTION_PAUSE_S, self._keep_h * 3_600 / _STEPS_PER_SLOT)
        while True:
            await asyncio.sleep(pause_s)
            await self._attempt("retention", self._retain)

    async def measure(self) -> None:
        """Measure the backlog for ever; ends by cancellation only."""
        while True:
            await self._attempt("backlog figures", self._measure_while_connected)
            await asyncio.sleep(self._measure_s)

    async def _retain(self) -> None:
        async with self._database.connection() as connection:
            steps = await retain(connection, keep_h=self._keep_h)
        if RetentionStep.EMPTIED in steps:
            _log.info("relay removed old SENT rows", steps=steps)
        elif steps:
            _log.debug("relay prepared the removal of old rows", steps=steps)

    async def _measure_while_connected(self) -> None:
        async with self._connections.connected() as connection:
            await use_partial_indexes(connection)
            while True:
                await measure_backlog(connection, self._counters, self._low_watermark.seq)
                await asyncio.sleep(self._measure_s)

    async def _attempt(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except HistoryChanged:
            raise  # the whole relay starts over
        except RelayboxError as error:
            self._counters.maintenance_failures_total += 1
            _log.warning(_FAILED, task=task, error_code=error.error_code, reason=str(error))
        except Exception as error:  # noqa: BLE001 - publishing does not depend on this work
            self._counters.maintenance_failures_total += 1
            _log.error(_FAILED, task=task, traceback=traceback_of(error))
