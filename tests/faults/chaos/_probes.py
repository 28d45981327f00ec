"""Measure the time from a fault until every lane publishes again."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from tests.faults.chaos._schedule import FaultKind
from tests.faults.chaos._writers import Writer

PROBE_PREFIX: Final = "probe-"


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Events written after a fault, one per lane."""

    kind: FaultKind
    #: Start of the recovery, ``time.monotonic()``.
    from_s: float
    event_ids: frozenset[UUID]

    def recovery_s(self, seen_s: Mapping[UUID, float]) -> float | None:
        """Return the seconds until a consumer received the last event; None if one is missing."""
        times = [seen_s.get(event_id) for event_id in self.event_ids]
        if None in times:
            return None
        return max(time for time in times if time is not None) - self.from_s


class Prober:
    """Writes the probes; an unavailable PostgreSQL counts as part of the recovery."""

    def __init__(self, writer: Writer) -> None:
        """Use *writer*, which has one key per lane and no other task."""
        self._writer = writer
        self._asked: asyncio.Queue[tuple[FaultKind, float]] = asyncio.Queue()
        #: Probes of all faults so far.
        self.probes: list[Probe] = []

    def measure_from_now(self, kind: FaultKind) -> None:
        """Measure the recovery from a fault of *kind* from this moment."""
        self._asked.put_nowait((kind, time.monotonic()))

    async def run(self) -> None:
        """Write a probe for every fault, until cancelled."""
        while True:
            waiting = [await self._asked.get()]
            while not self._asked.empty():
                waiting.append(self._asked.get_nowait())
            one_each = [(key, 1) for key in self._writer.keys]
            while (events := await self._writer.write(one_each)) is None:
                pass  # the writer itself waits while PostgreSQL is unavailable
            ids = frozenset(one.event_id for one in events)
            self.probes += [Probe(kind=kind, from_s=from_s, event_ids=ids) for kind, from_s in waiting]
            for _ in waiting:
                self._asked.task_done()

    async def wait_until_written(self) -> None:
        """Wait until the probe of every fault is written."""
        await self._asked.join()
