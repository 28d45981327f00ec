"""Inject the scheduled faults by one task per target, so that faults of different targets overlap."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from tests.faults.chaos._journal import Timeline
from tests.faults.chaos._probes import Prober
from tests.faults.chaos._proxy import Direction, Proxy
from tests.faults.chaos._schedule import Fault, FaultKind, Target
from tests.faults.chaos._servers import UNAVAILABLE_ERRORS, SingleServers
from tests.faults.chaos._services import ServiceSlot
from tests.faults.chaos._writers import Poison, Writer

_DELAY_S: Final = (0.02, 0.4)
_END_BACKENDS: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE (application_name LIKE '%relay%' OR application_name = 'chaos-consumers')
      AND pid <> pg_backend_pid()
"""
#: Not a fault, but as demanding: lanes split during other faults, up to four times the initial number.
_DOUBLE_LANES: Final = """
    UPDATE relay_origin SET lanes_wanted = 2 * lanes_wanted WHERE lanes_wanted <= 16 RETURNING lanes_wanted
"""
_DIRECTIONS: Final = (
    (Direction.REQUESTS,),
    (Direction.RESPONSES,),
    (Direction.REQUESTS, Direction.RESPONSES),
)
#: Share of poison rows that name a missing topic; the others are too large.
_MISSING_TOPIC_SHARE: Final = 0.3
#: Faults that delay no event on its way to the topic, or only events of their keys.
_NOT_MEASURED: Final = (
    FaultKind.POISON,
    FaultKind.CONSUMER_KILL,
    FaultKind.CONSUMER_PAUSE,
    FaultKind.CONSUMER_FREEZE,
    FaultKind.CONSUMER_RESTART,
    FaultKind.CONSUMER_JOIN,
    FaultKind.CONSUMER_POISON,
)


#: Injects a fault: yields once when the fault is in effect, and returns at its end; yields nothing if no
#: target was available.
FaultHandler = Callable[[Fault], AsyncIterator[None]]


class Injector:
    """Injects the scheduled faults; a fault without an available target is not counted."""

    def __init__(
        self,
        handlers: Mapping[FaultKind, FaultHandler],
        prober: Prober,
        timeline: Timeline,
        *,
        recovery_from_strike: bool,
    ) -> None:
        """Measure recovery from the start of each fault if *recovery_from_strike*, else from its end."""
        self._handlers = handlers
        self._prober = prober
        self._timeline = timeline
        self._recovery_from_strike = recovery_from_strike
        #: Number of injected faults by kind.
        self.injected: Counter[FaultKind] = Counter()

    async def run(self, faults: Mapping[Target, Sequence[Fault]], *, seconds: float) -> None:
        """Inject *faults*; return after the end of the last one.

        Args:
            faults: The faults of each target, in order of time.
            seconds: Length of the run. On a busy machine faults begin late; those that would begin after
                this time are left out, and not counted.
        """
        async with asyncio.TaskGroup() as group:
            for of_target in faults.values():
                group.create_task(self._run_target(of_target, seconds))

    async def _run_target(self, faults: Sequence[Fault], seconds: float) -> None:
        for fault in faults:
            if self._timeline.now_s() >= seconds:
                return
            await asyncio.sleep(max(0.0, fault.at_s - self._timeline.now_s()))
            self._timeline.note(f"fault begins: {fault.kind}, {fault.lasts_s:.1f} s")
            hit = False
            async for _ in self._handlers[fault.kind](fault):
                hit = True
                self.injected[fault.kind] += 1
                if self._recovery_from_strike and fault.kind not in _NOT_MEASURED:
                    self._prober.measure_from_now(fault.kind)
            if hit and not self._recovery_from_strike and fault.kind not in _NOT_MEASURED:
                self._prober.measure_from_now(fault.kind)
            self._timeline.note(f"fault ended: {fault.kind}{'' if hit else ', no target available'}")


class ServiceFaults:
    """Handlers of the faults of several processes that share the work: relays, or consumers."""

    def __init__(
        self,
        slots: Sequence[ServiceSlot],
        timeline: Timeline,
        *,
        kills: FaultKind,
        freezes: Sequence[FaultKind],
        restarts: FaultKind,
    ) -> None:
        """Kill, freeze and restart *slots* in faults of these kinds."""
        self._slots = slots
        self._timeline = timeline
        self.handlers: Mapping[FaultKind, FaultHandler] = {
            kills: self._kill,
            **dict.fromkeys(freezes, self._freeze),
            restarts: self._restart,
        }

    def _some_slot(self, fault: Fault) -> ServiceSlot | None:
        calm = [slot for slot in self._slots if slot.is_running]
        return calm[int(fault.pick * len(calm))] if calm else None

    async def _kill(self, fault: Fault) -> AsyncIterator[None]:
        slot = self._some_slot(fault)
        if slot is None:
            return
        slot.kill()
        self._timeline.note(f"{slot.name} killed")
        # The other processes take its work over before or after its restart.
        asyncio.get_running_loop().call_later(fault.lasts_s, slot.start)
        yield

    async def _freeze(self, fault: Fault) -> AsyncIterator[None]:
        slot = self._some_slot(fault)
        if slot is None:
            return
        slot.freeze()
        self._timeline.note(f"{slot.name} frozen")
        yield
        await asyncio.sleep(fault.lasts_s)
        slot.resume()

    async def _restart(self, fault: Fault) -> AsyncIterator[None]:
        slot = self._some_slot(fault)
        if slot is None:
            return
        self._timeline.note(f"{slot.name} stopping")
        yield
        await slot.stop()
        await asyncio.sleep(fault.lasts_s)
        slot.start()


class SingleServerFaults:
    """Handlers of the faults of one PostgreSQL, one broker and the connections to them."""

    def __init__(self, servers: SingleServers, poisoned: Writer) -> None:
        """Write poison to the keys of *poisoned*."""
        self._servers = servers
        self._poisoned = poisoned
        self.handlers: Mapping[FaultKind, FaultHandler] = {
            FaultKind.BROKER_KILL: self._kill_broker,
            FaultKind.BROKER_RESTART: self._restart_broker,
            FaultKind.BROKER_FREEZE: self._freeze_broker,
            FaultKind.BROKER_LONG_FREEZE: self._freeze_broker,
            FaultKind.POSTGRES_CRASH: self._crash_postgres,
            FaultKind.BACKENDS_END: lambda _fault: self._run_query(_END_BACKENDS),
            FaultKind.KAFKA_CUT: lambda fault: self._cut(servers.kafka_proxy, fault),
            FaultKind.KAFKA_DELAY: lambda fault: self._delay(servers.kafka_proxy, fault),
            FaultKind.KAFKA_DROP: lambda fault: self._drop(servers.kafka_proxy, fault),
            FaultKind.POSTGRES_CUT: lambda fault: self._cut(servers.postgres_proxy, fault),
            FaultKind.POSTGRES_DELAY: lambda fault: self._delay(servers.postgres_proxy, fault),
            FaultKind.POSTGRES_DROP: lambda fault: self._drop(servers.postgres_proxy, fault),
            FaultKind.POISON: self._poison,
            FaultKind.MORE_LANES: lambda _fault: self._run_query(_DOUBLE_LANES),
        }

    async def _kill_broker(self, fault: Fault) -> AsyncIterator[None]:
        self._servers.kafka.kill()
        yield
        await asyncio.sleep(fault.lasts_s)
        await self._servers.kafka.start()

    async def _restart_broker(self, fault: Fault) -> AsyncIterator[None]:
        yield
        await self._servers.kafka.stop()
        await asyncio.sleep(fault.lasts_s)
        await self._servers.kafka.start()

    async def _freeze_broker(self, fault: Fault) -> AsyncIterator[None]:
        self._servers.kafka.pause()
        yield
        await asyncio.sleep(fault.lasts_s)
        self._servers.kafka.resume()

    async def _crash_postgres(self, fault: Fault) -> AsyncIterator[None]:
        yield
        await self._servers.postgres.stop("immediate")
        await asyncio.sleep(fault.lasts_s)
        await self._servers.postgres.start()

    async def _run_query(self, query: str) -> AsyncIterator[None]:
        """Run *query*; the fault counts if the result is true and PostgreSQL is available."""
        try:
            connection = await self._servers.connect(superuser=True)
            try:
                hit = await connection.fetchval(query)
            finally:
                connection.terminate()
        except UNAVAILABLE_ERRORS:
            return
        if hit:
            yield

    async def _cut(self, proxy: Proxy, fault: Fault) -> AsyncIterator[None]:
        if proxy.cut(fault.pick):
            yield

    async def _delay(self, proxy: Proxy, fault: Fault) -> AsyncIterator[None]:
        shortest_s, longest_s = _DELAY_S
        proxy.delay(shortest_s + fault.pick * (longest_s - shortest_s))
        yield
        await asyncio.sleep(fault.lasts_s)
        proxy.delay(0)

    async def _drop(self, proxy: Proxy, fault: Fault) -> AsyncIterator[None]:
        proxy.drop(*_DIRECTIONS[int(fault.pick * len(_DIRECTIONS))])
        yield
        await asyncio.sleep(fault.lasts_s)
        proxy.drop()

    async def _poison(self, fault: Fault) -> AsyncIterator[None]:
        keys = self._poisoned.keys
        kind = Poison.MISSING_TOPIC if fault.pick < _MISSING_TOPIC_SHARE else Poison.TOO_LARGE
        # One random number decides both: its later digits choose the key.
        self._poisoned.poison(keys[int(fault.pick * 1_000) % len(keys)], kind)
        yield
