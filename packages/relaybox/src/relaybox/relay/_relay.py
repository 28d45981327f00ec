"""The message relay, put together."""

import asyncio
import os
from typing import Final

import structlog

from relaybox.db import Database, DatabaseError
from relaybox.relay._ask import connected
from relaybox.relay._at_least_once import AtLeastOnce
from relaybox.relay._delivery import Delivery
from relaybox.relay._exactly_once import ExactlyOnce
from relaybox.relay._keeper import Keeper
from relaybox.relay._lanes import Lanes
from relaybox.relay._maintenance import Maintenance
from relaybox.relay._pump import Pump
from relaybox.relay._signals import OnSignal, Signal
from relaybox.relay._statistics import Counters, Statistics
from relaybox.settings import KafkaSettings, RelaySettings

__all__ = ("Relay",)

#: From SIGTERM to the end are 10 s at the most (G27): what is in flight gets 6 of them, recording it 2,
#: giving the lanes back 1.
_STOP_PUMP_S: Final = 6.0
_STOP_RECORD_S: Final = 2.0
_STOP_LEAVE_S: Final = 1.0
_WATCH_S: Final = 1.0
#: EX_SOFTWARE of sysexits.h.
_HUNG_STATUS: Final = 70
_log = structlog.get_logger(__name__)


def _ignore(_signal: Signal) -> None:
    """Nobody listens."""


class Relay:
    """Publishes the outbox of one database; any number of relays share the work without configuration.

    An event is never lost, and per key the first appearances are in commit order (G20, G21). Exactly
    once, readers of committed messages find each event once, whatever died (G31); at least once, an
    event may reach the topic again, with the same ``ce_id``, if a process or a server dies between
    acknowledgement and mark. It takes five connections outside *database*'s pool, and a sixth
    while it takes lanes over.
    """

    def __init__(
        self,
        database: Database,
        kafka: KafkaSettings,
        settings: RelaySettings,
        *,
        name: str = "relay",
        on_signal: OnSignal = _ignore,
    ) -> None:
        """Describe the relay; nothing connects before :meth:`run`. *name* is for people only."""
        self._database = database
        self._name = name
        self._signal = on_signal
        self._counters = Counters()
        self._lanes = Lanes(lease_s=settings.lease_s, delivery=settings.delivery)
        self._keeper = Keeper(database, settings, self._lanes, self._counters, on_signal)
        self._maintenance = Maintenance(
            database,
            self._counters,
            self._keeper.floor,
            keep_h=settings.retention_h,
            measure_s=settings.poll_interval,
        )
        delivery: Delivery = (
            ExactlyOnce(database, kafka, compression=settings.compression, wake=self._keeper.news.set)
            if settings.delivery == "exactly-once"
            else AtLeastOnce(kafka, compression=settings.compression)
        )
        self._delivery = delivery
        self._pump = Pump(database, delivery, settings, self._lanes, self._keeper, self._counters, on_signal)
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        look = self.statistics()
        lanes = f"lanes {','.join(map(str, look.lanes))}" if look.lanes else "no lanes"
        link = "link up" if look.link_up else "link down"
        return f"<Relay {self._name!r} [{lanes} | {look.in_flight} in flight | {link}]>"

    def statistics(self) -> Statistics:
        """What it has done and holds, for metrics, operators and tests; costs nothing."""
        return self._counters.look(
            lanes=self._lanes.owned(),
            members=self._lanes.members,
            in_flight=len(self._pump.flights.messages()),
            breaker=self._pump.breaker.state,
        )

    def stop(self) -> None:
        """Ask :meth:`run` to end; to be called in its event loop, for instance by a signal handler."""
        self._stopping.set()
        self._pump.stop()

    async def run(self) -> None:
        """Relay until :meth:`stop`, then return within 10 s: nothing half-marked, the lanes given back (G27).

        PostgreSQL or Kafka away is waited out, at any time. What is raised here, in an exception
        group, is a defect or a database without the schema.
        """
        _log.info("relay started", relay=self._name)
        try:
            async with asyncio.TaskGroup() as group:
                pump = group.create_task(self._pump.run(), name="relay-pump")
                keeper = group.create_task(self._keeper.run(), name="relay-keeper")
                watchdog = group.create_task(self._watch(), name="relay-watchdog")
                recorder = group.create_task(self._pump.recorder.run(), name="relay-recorder")
                retention = group.create_task(self._maintenance.remove_old_rows(), name="relay-retention")
                backlog = group.create_task(self._maintenance.measure(), name="relay-backlog")
                await self._stopping.wait()
                retention.cancel()
                backlog.cancel()
                await asyncio.wait({pump}, timeout=_STOP_PUMP_S)
                pump.cancel()
                await self._settle()
                recorder.cancel()
                keeper.cancel()
                watchdog.cancel()
            await self._leave()
        finally:
            await self._pump.close()
        self._signal(Signal.STOPPED)
        _log.info("relay stopped", relay=self._name)

    async def _watch(self) -> None:
        """End the process if a call to Kafka hangs: the heartbeats would keep its lanes for ever.

        Every call counts: a batch, a takeover, a question. Nothing is lost by that: the next owner of the
        lanes settles what is undecided. The thread that hangs cannot be ended, and would keep the interpreter
        from ending in order.
        """
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._delivery.hung():
                _log.critical("relay ends: a call to Kafka does not come back; start it again")
                os._exit(_HUNG_STATUS)

    async def _settle(self) -> None:
        """Record the last batch while the keeper still keeps its lanes."""
        try:
            async with asyncio.timeout(_STOP_RECORD_S):
                await self._pump.recorder.done()
        except TimeoutError:
            _log.warning("relay stopped without PostgreSQL: whoever takes its lanes settles its last batch")

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_STOP_LEAVE_S), connected(self._database) as connection:
                await self._lanes.leave(connection)
        except (DatabaseError, TimeoutError):
            _log.warning("relay stopped without PostgreSQL: its lanes go to others when their leases end")
