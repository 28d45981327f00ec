"""A relay's work in one history of PostgreSQL."""

import asyncio
import os
from typing import Final

import structlog

from relaybox.db import Database, DatabaseError
from relaybox.relay._at_least_once import AtLeastOnce
from relaybox.relay._delivery import Delivery
from relaybox.relay._errors import HistoryChanged
from relaybox.relay._exactly_once import ExactlyOnce
from relaybox.relay._history import Connections
from relaybox.relay._keeper import LeaseHeartbeat
from relaybox.relay._lanes import Lanes
from relaybox.relay._maintenance import Maintenance
from relaybox.relay._partitions import PartitionWatch
from relaybox.relay._publish_loop import PublishLoop
from relaybox.relay._replication import Replication
from relaybox.relay._signals import OnSignal
from relaybox.relay._statistics import Counters, Statistics
from relaybox.settings import KafkaSettings, RelaySettings

__all__ = ("Session",)

#: From SIGTERM to the end are 10 s at the most (G27): what is in flight gets 6 of them, recording it 2,
#: giving the lanes back 1.
_STOP_PUBLISHING_S: Final = 6.0
_STOP_RECORD_S: Final = 2.0
_STOP_LEAVE_S: Final = 1.0
_WATCH_S: Final = 1.0
#: EX_SOFTWARE of sysexits.h.
_HUNG_STATUS: Final = 70
_log = structlog.get_logger(__name__)


class Session:
    """Everything that a relay knows of the outbox and Kafka: connections, lanes, marks, watermark, producers.

    Invariant (G35): all of it is about one history of PostgreSQL. In another one nothing of it may be used,
    so the relay drops the session and begins another, as another owner of lanes.
    """

    def __init__(
        self,
        database: Database,
        kafka: KafkaSettings,
        settings: RelaySettings,
        counters: Counters,
        on_signal: OnSignal,
    ) -> None:
        self._counters = counters
        self._connections = Connections(database)
        self._lanes = Lanes(lease_s=settings.lease_s, delivery=settings.delivery)
        self._heartbeat = LeaseHeartbeat(
            self._connections,
            settings,
            self._lanes,
            counters,
            on_signal,
            troubles=lambda: self.statistics().troubles,
        )
        self._partitions = PartitionWatch(kafka)
        self._maintenance = Maintenance(
            database,
            self._connections,
            counters,
            self._heartbeat.low_watermark,
            keep_h=settings.retention_h,
            measure_s=settings.poll_interval,
        )
        self._delivery = self._new_delivery(kafka, settings)
        self._publish_loop = PublishLoop(
            self._connections, self._delivery, settings, self._lanes, self._heartbeat, counters, on_signal
        )
        self._partitions.available = self._publish_loop.requeue_soon

    def _new_delivery(self, kafka: KafkaSettings, settings: RelaySettings) -> Delivery:
        if settings.delivery == "at-least-once":
            return AtLeastOnce(kafka, compression=settings.compression, partitions=self._partitions)
        return ExactlyOnce(
            self._connections,
            kafka,
            compression=settings.compression,
            replication=Replication.of(settings),
            partitions=self._partitions,
            wake=self._heartbeat.work_available.set,
        )

    def statistics(self) -> Statistics:
        """Return what was done and is held."""
        return self._counters.snapshot(
            lanes=self._lanes.owned(),
            members=self._lanes.members,
            in_flight=len(self._publish_loop.in_flight.messages()),
            breaker=self._publish_loop.breaker.state,
            partitions_unavailable=tuple(self._partitions.reasons()),
            lanes_stuck=tuple(
                f"lane {lane} has published nothing for 10 s: {reason}"
                for lane, reason in self._delivery.stuck_lanes().items()
            ),
        )

    def stop(self) -> None:
        """Fetch nothing more, and wait for acknowledgements for 5 s at the most."""
        self._publish_loop.stop()

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until *stopping* is set, then return within 10 s: nothing half-marked, no lane kept (G27).

        Raises:
            ExceptionGroup: Of :class:`HistoryChanged` if PostgreSQL is in another history; else of a defect,
                or a database without the schema.
        """
        try:
            async with asyncio.TaskGroup() as group:
                publish_loop = group.create_task(self._publish_loop.run(), name="relay-publish-loop")
                heartbeat = group.create_task(self._heartbeat.run(), name="relay-lease-heartbeat")
                watchdog = group.create_task(self._watch(), name="relay-watchdog")
                recorder = group.create_task(self._publish_loop.recorder.run(), name="relay-recorder")
                retention = group.create_task(self._maintenance.remove_old_rows(), name="relay-retention")
                backlog = group.create_task(self._maintenance.measure(), name="relay-backlog")
                partitions = group.create_task(self._partitions.run(), name="relay-partitions")
                await stopping.wait()
                retention.cancel()
                backlog.cancel()
                partitions.cancel()
                await asyncio.wait({publish_loop}, timeout=_STOP_PUBLISHING_S)
                publish_loop.cancel()
                await self._settle()
                recorder.cancel()
                heartbeat.cancel()
                watchdog.cancel()
            await self._release_lanes()
        finally:
            await self._publish_loop.close()

    async def _watch(self) -> None:
        """End the process if a call to Kafka hangs: the heartbeats would keep its lanes for ever.

        Every call counts: a batch, a takeover, a question. Nothing is lost by that: the next owner of the
        lanes settles what is undecided. The thread that hangs cannot be ended, and would keep the interpreter
        from ending in order.
        """
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._delivery.hung() or self._partitions.hung():
                _log.critical("relay ends: a call to Kafka does not come back; start it again")
                os._exit(_HUNG_STATUS)

    async def _settle(self) -> None:
        """Record the last batch while the keeper still keeps its lanes."""
        try:
            async with asyncio.timeout(_STOP_RECORD_S):
                await self._publish_loop.recorder.wait_until_empty()
        except TimeoutError:
            _log.warning(
                "relay stopped without PostgreSQL: the next owner of its lanes settles its last batch"
            )

    async def _release_lanes(self) -> None:
        try:
            async with asyncio.timeout(_STOP_LEAVE_S), self._connections.connected() as connection:
                await self._lanes.release_all(connection)
        except (DatabaseError, HistoryChanged, TimeoutError):
            _log.warning("relay stopped without PostgreSQL: its lanes go to others when their leases end")
