"""Carrying the schedule out: one task per target, so that faults of different targets overlap."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Final

from tests.faults.chaos._journal import Timeline
from tests.faults.chaos._probes import Prober
from tests.faults.chaos._proxy import Proxy, Way
from tests.faults.chaos._relays import RelaySlot
from tests.faults.chaos._schedule import Fault, Kind, Target
from tests.faults.chaos._stage import AWAY, SingleStage
from tests.faults.chaos._writers import Poison, Writer

_DELAY_S: Final = (0.02, 0.4)
_END_BACKENDS: Final = """
    SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE application_name LIKE '%relay%' AND pid <> pg_backend_pid()
"""
#: No fault, but as hard: lanes split under whatever else happens. Four times as many as at first are enough.
_DOUBLE_LANES: Final = """
    UPDATE relay_origin SET lanes_wanted = 2 * lanes_wanted WHERE lanes_wanted <= 16 RETURNING lanes_wanted
"""
_WAYS: Final = ((Way.REQUESTS,), (Way.ANSWERS,), (Way.REQUESTS, Way.ANSWERS))
#: One poison row in so many names a topic that does not exist; the others are too large.
_NO_TOPIC_SHARE: Final = 0.3


#: Carries out a fault. Yields once, when the fault has struck, and returns when it has ended; yields nothing
#: if it found nothing to hit.
Act = Callable[[Fault], AsyncIterator[None]]


class Injector:
    """Hits the system by the schedule; a fault that finds nothing to hit is not counted."""

    def __init__(
        self, acts: Mapping[Kind, Act], prober: Prober, timeline: Timeline, *, recovery_from_strike: bool
    ) -> None:
        """Recovery counts from the moment when a fault strikes, else from the one when it has ended."""
        self._acts = acts
        self._prober = prober
        self._timeline = timeline
        self._recovery_from_strike = recovery_from_strike
        #: How often each kind has hit something.
        self.injected: Counter[Kind] = Counter()

    async def run(self, faults: Mapping[Target, Sequence[Fault]]) -> None:
        """Inject *faults*; returns when the last one has ended."""
        async with asyncio.TaskGroup() as group:
            for of_target in faults.values():
                group.create_task(self._run_target(of_target))

    async def _run_target(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            await asyncio.sleep(max(0.0, fault.at_s - self._timeline.now_s()))
            self._timeline.note(f"fault begins: {fault.kind}, {fault.lasts_s:.1f} s")
            hit = False
            async for _ in self._acts[fault.kind](fault):
                hit = True
                self.injected[fault.kind] += 1
                if self._recovery_from_strike:
                    self._prober.count_from_now(fault.kind)
            if hit and not self._recovery_from_strike and fault.kind is not Kind.POISON:
                self._prober.count_from_now(fault.kind)
            self._timeline.note(f"fault ended: {fault.kind}{'' if hit else ', hit nothing'}")


class RelayFaults:
    """What is done to relays."""

    def __init__(self, relays: Sequence[RelaySlot], timeline: Timeline) -> None:
        self._relays = relays
        self._timeline = timeline
        self.acts: Mapping[Kind, Act] = {
            Kind.RELAY_KILL: self._kill,
            Kind.RELAY_FREEZE: self._freeze,
            Kind.RELAY_RESTART: self._restart,
        }

    def _some_relay(self, fault: Fault) -> RelaySlot | None:
        calm = [relay for relay in self._relays if relay.calm]
        return calm[int(fault.pick * len(calm))] if calm else None

    async def _kill(self, fault: Fault) -> AsyncIterator[None]:
        relay = self._some_relay(fault)
        if relay is None:
            return
        relay.kill()
        self._timeline.note(f"{relay.name} killed")
        # The others take over, whether or not it comes back.
        asyncio.get_running_loop().call_later(fault.lasts_s, relay.start)
        yield

    async def _freeze(self, fault: Fault) -> AsyncIterator[None]:
        relay = self._some_relay(fault)
        if relay is None:
            return
        relay.freeze()
        self._timeline.note(f"{relay.name} frozen")
        yield
        await asyncio.sleep(fault.lasts_s)
        relay.thaw()

    async def _restart(self, fault: Fault) -> AsyncIterator[None]:
        relay = self._some_relay(fault)
        if relay is None:
            return
        self._timeline.note(f"{relay.name} told to stop")
        yield
        await relay.stop()
        await asyncio.sleep(fault.lasts_s)
        relay.start()


class SingleServerFaults:
    """What is done to one PostgreSQL, one broker and the links to them."""

    def __init__(self, stage: SingleStage, poisoned: Writer) -> None:
        """Poison goes behind events of the keys of *poisoned*."""
        self._stage = stage
        self._poisoned = poisoned
        self.acts: Mapping[Kind, Act] = {
            Kind.BROKER_KILL: self._kill_broker,
            Kind.BROKER_RESTART: self._restart_broker,
            Kind.BROKER_FREEZE: self._freeze_broker,
            Kind.BROKER_LONG_FREEZE: self._freeze_broker,
            Kind.POSTGRES_CRASH: self._crash_postgres,
            Kind.BACKENDS_END: lambda _fault: self._ask(_END_BACKENDS),
            Kind.KAFKA_CUT: lambda fault: self._cut(stage.kafka_proxy, fault),
            Kind.KAFKA_DELAY: lambda fault: self._delay(stage.kafka_proxy, fault),
            Kind.KAFKA_SWALLOW: lambda fault: self._swallow(stage.kafka_proxy, fault),
            Kind.POSTGRES_CUT: lambda fault: self._cut(stage.postgres_proxy, fault),
            Kind.POSTGRES_DELAY: lambda fault: self._delay(stage.postgres_proxy, fault),
            Kind.POSTGRES_SWALLOW: lambda fault: self._swallow(stage.postgres_proxy, fault),
            Kind.POISON: self._poison,
            Kind.MORE_LANES: lambda _fault: self._ask(_DOUBLE_LANES),
        }

    async def _kill_broker(self, fault: Fault) -> AsyncIterator[None]:
        self._stage.kafka.kill()
        yield
        await asyncio.sleep(fault.lasts_s)
        await self._stage.kafka.start()

    async def _restart_broker(self, fault: Fault) -> AsyncIterator[None]:
        yield
        await self._stage.kafka.stop()
        await asyncio.sleep(fault.lasts_s)
        await self._stage.kafka.start()

    async def _freeze_broker(self, fault: Fault) -> AsyncIterator[None]:
        self._stage.kafka.pause()
        yield
        await asyncio.sleep(fault.lasts_s)
        self._stage.kafka.resume()

    async def _crash_postgres(self, fault: Fault) -> AsyncIterator[None]:
        yield
        await self._stage.postgres.stop("immediate")
        await asyncio.sleep(fault.lasts_s)
        await self._stage.postgres.start()

    async def _ask(self, query: str) -> AsyncIterator[None]:
        """Run *query*; it hits nothing if it returns nothing, or if PostgreSQL is away."""
        try:
            connection = await self._stage.connect(superuser=True)
            try:
                hit = await connection.fetchval(query)
            finally:
                connection.terminate()
        except AWAY:
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

    async def _swallow(self, proxy: Proxy, fault: Fault) -> AsyncIterator[None]:
        proxy.swallow(*_WAYS[int(fault.pick * len(_WAYS))])
        yield
        await asyncio.sleep(fault.lasts_s)
        proxy.swallow()

    async def _poison(self, fault: Fault) -> AsyncIterator[None]:
        keys = self._poisoned.keys
        kind = Poison.NO_TOPIC if fault.pick < _NO_TOPIC_SHARE else Poison.TOO_LARGE
        # The same pick decides both; its later digits are as random as its first.
        self._poisoned.poison(keys[int(fault.pick * 1_000) % len(keys)], kind)
        yield
