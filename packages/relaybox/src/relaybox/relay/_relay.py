"""The message relay: its start, its tasks, its end, and its restart after a failover of PostgreSQL."""

import asyncio
import os
from collections.abc import Mapping
from functools import partial
from typing import Final

import structlog

from relaybox.db import Database, DatabaseError
from relaybox.outbox import OutboxSettings
from relaybox.relay._at_least_once import AtLeastOnce
from relaybox.relay._background import Maintenance, PartitionWatch
from relaybox.relay._backoff import link_pause_s, wait_at_most
from relaybox.relay._batches import Delivery
from relaybox.relay._errors import HistoryChanged, LinkDown
from relaybox.relay._exactly_once import ExactlyOnce
from relaybox.relay._kafka import BrokerClient, client_settings
from relaybox.relay._lanes import Lanes, LeaseHeartbeat
from relaybox.relay._postgres import Connections
from relaybox.relay._publish_loop import PublishLoop
from relaybox.relay._statistics import Counters, RelaySignal, Statistics
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.signals import OnSignal
from relaybox.topics import BrokerAway, Replication, TopicsNotReady, check_replicas, ensure_topics

__all__ = (
    "Relay",
    "Session",
    "TopicsFirst",
)

#: From SIGTERM to the end are 10 s at the most (G27): what is in flight gets 6 of them, recording it 2,
#: giving the lanes back 1.
_STOP_PUBLISHING_S: Final = 6.0
_STOP_RECORD_S: Final = 2.0
_STOP_LEAVE_S: Final = 1.0
_WATCH_S: Final = 1.0
#: EX_SOFTWARE of sysexits.h.
_HUNG_STATUS: Final = 70
_log = structlog.get_logger(__name__)
#: Two servers behind one address that both take writes must not make a relay start over without end.
_START_OVER_PAUSE_S: Final = 0.5


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
        on_signal: OnSignal[RelaySignal],
    ) -> None:
        self._counters = counters
        self._connections = Connections(database)
        self._lanes = Lanes(lease_s=settings.lease_s, delivery=settings.delivery)
        self._heartbeat = LeaseHeartbeat(
            self._connections,
            settings,
            self._lanes,
            on_signal,
            statistics=self.statistics,
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
        self._partitions.on_available(self._publish_loop.requeue_soon)

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
            await self._delivery.close()

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


def _ignore(_signal: RelaySignal) -> None:
    """Do nothing."""


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
        on_signal: OnSignal[RelaySignal] = _ignore,
    ) -> None:
        """Describe the relay; nothing connects before :meth:`run`. *name* is for people only."""
        self._name = name
        self._signal = on_signal
        self._counters = Counters()
        self._new_session = partial(Session, database, kafka, settings, self._counters, on_signal)
        self._session = self._new_session()
        self._stopping = asyncio.Event()

    def __repr__(self) -> str:
        look = self.statistics()
        lanes = f"lanes {','.join(map(str, look.lanes))}" if look.lanes else "no lanes"
        link = "link up" if look.link_up else "link down"
        return f"<Relay {self._name!r} [{lanes} | {look.in_flight} in flight | {link}]>"

    def statistics(self) -> Statistics:
        """What it has done and holds, for metrics, operators and tests; costs nothing."""
        return self._session.statistics()

    def stop(self) -> None:
        """Ask :meth:`run` to end; to be called in its event loop, for instance by a signal handler."""
        self._stopping.set()
        self._session.stop()

    async def run(self) -> None:
        """Relay until :meth:`stop`, then return within 10 s: nothing half-marked, the lanes given back (G27).

        PostgreSQL or Kafka away is waited out, at any time, and so are a failover (G35) and a statement that
        PostgreSQL refuses. What is raised here, in an exception group, is a defect.
        """
        _log.info("relay started", relay=self._name)
        await self._run_session()
        while not self._stopping.is_set():
            self._session = self._new_session()
            await self._run_session()
        self._signal(RelaySignal.STOPPED)
        _log.info("relay stopped", relay=self._name)

    async def _run_session(self) -> None:
        """Relay in one history of PostgreSQL, until it changes or the relay is stopped."""
        try:
            await self._session.run(self._stopping)
        except* HistoryChanged as changed:
            _log.error(
                "relay starts over in another history of PostgreSQL",
                error_code=HistoryChanged.error_code,
                reason=str(changed.exceptions[0]),
            )
            self._signal(RelaySignal.HISTORY_CHANGED)
            await wait_at_most(self._stopping, _START_OVER_PAUSE_S)


class TopicsFirst:
    """A relay that begins once every topic of ``OUTBOX_TOPICS`` exists.

    Without it a broker without topics would cost each row its attempts, and its key an operator
    (G24), for what is nobody's fault but the installation's.
    """

    def __init__(
        self, relay: Relay, kafka: KafkaSettings, settings: RelaySettings, outbox: OutboxSettings
    ) -> None:
        self._relay = relay
        self._kafka = kafka
        self._settings = settings
        self._outbox = outbox
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask :meth:`run` to end, as :meth:`Relay.stop` does."""
        self._stopping.set()
        self._relay.stop()

    async def run(self) -> None:
        """Wait for Kafka, make or check the topics, and relay until :meth:`stop`.

        Raises:
            TopicsNotReady: a topic is missing and may not, or cannot, be created; says which and how to.
        """
        failures = 0
        while not self._stopping.is_set():
            try:
                limits = await self._prepared()
                await check_replicas(self._kafka, self._outbox.declared())
            except (LinkDown, BrokerAway) as away:
                failures += 1
                if failures == 1:
                    _log.warning("relay waits for Kafka", error_code=away.error_code, reason=str(away))
                await wait_at_most(self._stopping, link_pause_s(failures))
            else:
                self._warn_about_small_limits(limits)
                await self._relay.run()
                return

    async def _prepared(self) -> Mapping[str, int]:
        """``max.message.bytes`` of each declared topic, all of which exist."""
        limits = await asyncio.to_thread(self._ask)
        missing = sorted(self._outbox.declared() - limits.keys())
        if not missing:
            return limits
        if not self._settings.create_topics:
            raise TopicsNotReady(
                f"no topic {', '.join(map(repr, missing))} on the broker; create what OUTBOX_TOPICS names "
                "with `relaybox topics create`, or set RELAY_CREATE_TOPICS=true"
            )
        partitions = self._settings.topic_partitions
        replication = Replication.of(self._settings)
        for topic in await ensure_topics(
            self._kafka, missing, partitions=partitions, replication=replication
        ):
            _log.info("relay created a topic", topic=topic, partitions=partitions)
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> Mapping[str, int]:
        link, declared = BrokerClient(client_settings(self._kafka)), self._outbox.declared()
        limits = link.limits(declared)
        link.close()
        return {topic: limits[topic] for topic in declared if topic in limits}

    def _warn_about_small_limits(self, limits: Mapping[str, int]) -> None:
        """What the outbox takes and the topic does not would be FAILED: told before it happens (G34)."""
        for topic, bytes_max in sorted(limits.items()):
            if bytes_max < self._outbox.message_bytes_max:
                _log.warning(
                    "a topic takes less than the outbox: raise its max.message.bytes, "
                    "or lower OUTBOX_MESSAGE_BYTES_MAX",
                    topic=topic,
                    topic_bytes_max=bytes_max,
                    outbox_bytes_max=self._outbox.message_bytes_max,
                )
