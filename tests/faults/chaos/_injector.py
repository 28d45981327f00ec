"""Carrying the schedule out: one task per target, so that faults of different targets overlap."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from tests.faults.chaos._journal import Timeline
from tests.faults.chaos._probes import Prober
from tests.faults.chaos._proxy import Proxy, Way
from tests.faults.chaos._relays import RelaySlot
from tests.faults.chaos._schedule import Fault, Kind, Target
from tests.faults.chaos._stage import AWAY, Stage
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


class Injector:
    """Hits the system by the schedule; a fault that finds nothing to hit is not counted."""

    def __init__(
        self,
        stage: Stage,
        relays: Sequence[RelaySlot],
        poisoned: Writer,
        prober: Prober,
        timeline: Timeline,
    ) -> None:
        """Poison goes behind events of the keys of *poisoned*."""
        self._stage = stage
        self._relays = relays
        self._poisoned = poisoned
        self._prober = prober
        self._timeline = timeline
        #: How often each kind has hit something.
        self.injected: Counter[Kind] = Counter()
        self._acts: dict[Kind, Callable[[Fault], Awaitable[bool]]] = {
            Kind.RELAY_KILL: self._kill_relay,
            Kind.RELAY_FREEZE: self._freeze_relay,
            Kind.RELAY_RESTART: self._restart_relay,
            Kind.BROKER_KILL: self._kill_broker,
            Kind.BROKER_RESTART: self._restart_broker,
            Kind.BROKER_FREEZE: self._freeze_broker,
            Kind.BROKER_LONG_FREEZE: self._freeze_broker,
            Kind.POSTGRES_CRASH: self._crash_postgres,
            Kind.BACKENDS_END: self._end_backends,
            Kind.KAFKA_CUT: lambda fault: self._cut(stage.kafka_proxy, fault),
            Kind.KAFKA_DELAY: lambda fault: self._delay(stage.kafka_proxy, fault),
            Kind.KAFKA_SWALLOW: lambda fault: self._swallow(stage.kafka_proxy, fault),
            Kind.POSTGRES_CUT: lambda fault: self._cut(stage.postgres_proxy, fault),
            Kind.POSTGRES_DELAY: lambda fault: self._delay(stage.postgres_proxy, fault),
            Kind.POSTGRES_SWALLOW: lambda fault: self._swallow(stage.postgres_proxy, fault),
            Kind.POISON: self._poison,
            Kind.MORE_LANES: self._double_lanes,
        }

    async def run(self, faults: Mapping[Target, Sequence[Fault]]) -> None:
        """Inject *faults*; returns when the last one has ended."""
        async with asyncio.TaskGroup() as group:
            for of_target in faults.values():
                group.create_task(self._run_target(of_target))

    async def _run_target(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            await asyncio.sleep(max(0.0, fault.at_s - self._timeline.now_s()))
            self._timeline.note(f"fault begins: {fault.kind}, {fault.lasts_s:.1f} s")
            hit = await self._acts[fault.kind](fault)
            if hit:
                self.injected[fault.kind] += 1
            if hit and fault.kind is not Kind.POISON:
                self._prober.fault_ended(fault.kind)
            self._timeline.note(f"fault ended: {fault.kind}{'' if hit else ', hit nothing'}")

    def _some_relay(self, fault: Fault) -> RelaySlot | None:
        calm = [relay for relay in self._relays if relay.calm]
        return calm[int(fault.pick * len(calm))] if calm else None

    async def _kill_relay(self, fault: Fault) -> bool:
        relay = self._some_relay(fault)
        if relay is None:
            return False
        relay.kill()
        self._timeline.note(f"{relay.name} killed")
        # Recovery counts from the kill: the others take over, whether or not it comes back.
        asyncio.get_running_loop().call_later(fault.lasts_s, relay.start)
        return True

    async def _freeze_relay(self, fault: Fault) -> bool:
        relay = self._some_relay(fault)
        if relay is None:
            return False
        relay.freeze()
        self._timeline.note(f"{relay.name} frozen")
        await asyncio.sleep(fault.lasts_s)
        relay.thaw()
        return True

    async def _restart_relay(self, fault: Fault) -> bool:
        relay = self._some_relay(fault)
        if relay is None:
            return False
        self._timeline.note(f"{relay.name} told to stop")
        await relay.stop()
        await asyncio.sleep(fault.lasts_s)
        relay.start()
        return True

    async def _kill_broker(self, fault: Fault) -> bool:
        self._stage.kafka.kill()
        await asyncio.sleep(fault.lasts_s)
        await self._stage.kafka.start()
        return True

    async def _restart_broker(self, fault: Fault) -> bool:
        await self._stage.kafka.stop()
        await asyncio.sleep(fault.lasts_s)
        await self._stage.kafka.start()
        return True

    async def _freeze_broker(self, fault: Fault) -> bool:
        self._stage.kafka.pause()
        await asyncio.sleep(fault.lasts_s)
        self._stage.kafka.resume()
        return True

    async def _crash_postgres(self, fault: Fault) -> bool:
        await self._stage.postgres.stop("immediate")
        await asyncio.sleep(fault.lasts_s)
        await self._stage.postgres.start()
        return True

    async def _end_backends(self, _fault: Fault) -> bool:
        return await self._ask(_END_BACKENDS)

    async def _double_lanes(self, _fault: Fault) -> bool:
        return await self._ask(_DOUBLE_LANES)

    async def _ask(self, query: str) -> bool:
        """Whether *query* hit something; False also if PostgreSQL is away."""
        try:
            connection = await self._stage.connect(superuser=True)
            try:
                return bool(await connection.fetchval(query))
            finally:
                connection.terminate()
        except AWAY:
            return False

    async def _cut(self, proxy: Proxy, fault: Fault) -> bool:
        return proxy.cut(fault.pick) > 0

    async def _delay(self, proxy: Proxy, fault: Fault) -> bool:
        shortest_s, longest_s = _DELAY_S
        proxy.delay(shortest_s + fault.pick * (longest_s - shortest_s))
        await asyncio.sleep(fault.lasts_s)
        proxy.delay(0)
        return True

    async def _swallow(self, proxy: Proxy, fault: Fault) -> bool:
        proxy.swallow(*_WAYS[int(fault.pick * len(_WAYS))])
        await asyncio.sleep(fault.lasts_s)
        proxy.swallow()
        return True

    async def _poison(self, fault: Fault) -> bool:
        keys = self._poisoned.keys
        kind = Poison.NO_TOPIC if fault.pick < _NO_TOPIC_SHARE else Poison.TOO_LARGE
        # The same pick decides both; its later digits are as random as its first.
        self._poisoned.poison(keys[int(fault.pick * 1_000) % len(keys)], kind)
        return True
