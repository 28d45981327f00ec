"""How long it takes after a fault until events flow again, in every lane."""

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
    """Events, one per lane, that were written after a fault."""

    kind: FaultKind
    #: From when recovery counts, ``time.monotonic()``.
    from_s: float
    event_ids: frozenset[UUID]

    def recovery_s(self, seen_s: Mapping[UUID, float]) -> float | None:
        """Seconds until the last of its events had been seen; None if one was not."""
        times = [seen_s.get(event_id) for event_id in self.event_ids]
        if None in times:
            return None
        return max(time for time in times if time is not None) - self.from_s


class Prober:
    """Writes the probes; a PostgreSQL that is away meanwhile is part of the recovery."""

    def __init__(self, writer: Writer) -> None:
        """*writer* has one key per lane and no other task."""
        self._writer = writer
        self._asked: asyncio.Queue[tuple[FaultKind, float]] = asyncio.Queue()
        #: Of the faults so far.
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
                pass  # the writer itself waits when PostgreSQL is away
            ids = frozenset(one.event_id for one in events)
            self.probes += [Probe(kind=kind, from_s=from_s, event_ids=ids) for kind, from_s in waiting]
            for _ in waiting:
                self._asked.task_done()

    async def wait_until_written(self) -> None:
        """Return once every fault has its probe."""
        await self._asked.join()
