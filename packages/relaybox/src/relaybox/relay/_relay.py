"""The relay: start, tasks, stop, and a new session after a failover of PostgreSQL."""

import asyncio
import os
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import structlog

from relaybox.db import Database, DatabaseError
from relaybox.outbox import OutboxSettings
from relaybox.periodic import wait_at_most
from relaybox.relay._at_least_once import AtLeastOnce
from relaybox.relay._background import Maintenance
from relaybox.relay._batches import Delivery
from relaybox.relay._errors import HistoryChanged, LinkDown, PartitionUnavailable, link_pause_s
from relaybox.relay._exactly_once import ExactlyOnce
from relaybox.relay._kafka import BrokerClient, client_settings
from relaybox.relay._lanes import Lanes, LeaseHeartbeat
from relaybox.relay._postgres import Connections
from relaybox.relay._publish_loop import PublishLoop
from relaybox.relay._statistics import Counters, RelaySignal, Statistics
from relaybox.settings import KafkaSettings, RelaySettings
from relaybox.signals import OnSignal
from relaybox.topics import (
    BrokerAway,
    PartitionWatch,
    Replication,
    TopicsNotReady,
    check_replicas,
    ensure_topics,
)

__all__ = (
    "Relay",
    "Session",
    "TopicsFirst",
)

#: A relay exits at most 10 s after SIGTERM (G27): 6 s for batches in flight, 2 s to record their outcomes,
#: 1 s to release the lanes.
_STOP_PUBLISHING_S: Final = 6.0
_STOP_RECORD_S: Final = 2.0
_STOP_LEAVE_S: Final = 1.0
_WATCH_S: Final = 1.0
#: Exit status if a call to Kafka hangs: EX_SOFTWARE of sysexits.h.
_HUNG_STATUS: Final = 70
_log = structlog.get_logger(__name__)
#: Pause before a new session. If two writable servers respond in turn at one address, each session ends soon
#: after its start; without the pause, the relay would start sessions without interruption.
_START_OVER_PAUSE_S: Final = 0.5


class Session:
    """State that a relay keeps for one history of PostgreSQL: connections, lanes, outcomes, producers.

    A history is a pair of system identifier and timeline. A failover or a restore of PostgreSQL changes it.

    Invariant (G35): no state of one history is used in another. When the history changes, the relay starts a
    new session. The new session has a new owner name, so it must lease the lanes as any other relay.
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
        self._partitions = PartitionWatch(client_settings(kafka), on_change=self._note_partitions)
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
        """Return counts since the start of the relay, and the current state."""
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
        """Make the publish loop fetch no more rows, and wait at most 5 s for acknowledgements.

        :meth:`run` returns only after the event *stopping*, its argument, is set too.
        """
        self._publish_loop.stop()

    async def run(self, stopping: asyncio.Event) -> None:
        """Publish until *stopping* is set; then record outcomes, release lanes and return within 10 s (G27).

        The session waits and retries while PostgreSQL or Kafka is unavailable, or the schema is missing.

        Raises:
            ExceptionGroup: Contains :class:`HistoryChanged` if the history of PostgreSQL has changed. Any
                other error in the group is a defect of the relay.
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
                await self._record_last_outcomes()
                recorder.cancel()
                heartbeat.cancel()
                watchdog.cancel()
            await self._release_lanes()
        finally:
            await self._delivery.close()

    async def _watch(self) -> None:
        """Exit the process with status 70 if a call to Kafka takes over 60 s.

        Otherwise the heartbeat would renew the leases for ever, and no relay would publish from the lanes.
        The limit applies to calls of a batch, a takeover or an admin client. No event is lost: the next owner
        of the lanes resolves transactions in doubt. The exit is immediate (``os._exit``), because a regular
        exit would wait for the hanging thread.
        """
        while True:
            await asyncio.sleep(_WATCH_S)
            if self._delivery.hung() or self._partitions.hung():
                _log.critical(
                    "relay exits with status 70: a call to Kafka has taken over 60 s; restart the relay and "
                    "check the brokers"
                )
                os._exit(_HUNG_STATUS)

    def _note_partitions(self, lost: Sequence[str], restored: int) -> None:
        for reason in lost:
            _log.error(
                "partition accepts no writes; rows of its keys wait",
                error_code=PartitionUnavailable.error_code,
                reason=reason,
            )
        if restored:
            unavailable = len(self._partitions.reasons())
            _log.info("partitions accept writes again", partitions=restored, unavailable=unavailable)
            self._publish_loop.requeue_soon()

    async def _record_last_outcomes(self) -> None:
        """Wait at most 2 s until all outcomes are recorded; meanwhile the heartbeat renews the leases."""
        try:
            async with asyncio.timeout(_STOP_RECORD_S):
                await self._publish_loop.recorder.wait_until_empty()
        except TimeoutError:
            _log.warning(
                "outcomes of rows not recorded within the limit of a stop; no action needed: the next owner "
                "of the lanes finds out what was published (exactly-once) or publishes again (at-least-once)",
                limit_s=_STOP_RECORD_S,
            )

    async def _release_lanes(self) -> None:
        try:
            async with asyncio.timeout(_STOP_LEAVE_S), self._connections.connected() as connection:
                await self._lanes.release_all(connection)
        except (DatabaseError, HistoryChanged, TimeoutError):
            _log.warning("lanes not released on stop; other relays can take them when their leases end")


def _ignore(_signal: RelaySignal) -> None:
    """Ignore a signal."""


class Relay:
    """Publish the outbox of one database; several relays share the lanes without configuration.

    No event is lost (G20). Per key, events first appear on the topic in commit order (G21). With exactly-once
    delivery, readers of committed messages find each event once, even if processes or servers fail (G31).
    With at-least-once delivery, an event may be published again with the same ``ce_id`` if a process or a
    server fails between the acknowledgement and the mark as SENT.

    A relay opens five connections to PostgreSQL outside the pool of *database*, and with exactly-once
    delivery a sixth during takeovers.
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
        """Configure the relay; :meth:`run` connects.

        Args:
            database: The database with the outbox.
            kafka: Addresses of the brokers, and how to authenticate.
            settings: Settings ``RELAY_…``.
            name: Name of the relay in logs.
            on_signal: Called with each signal; for tests.
        """
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
        """Return counts since the start of the relay, and the current state; no I/O."""
        return self._session.statistics()

    def stop(self) -> None:
        """Make :meth:`run` return; call this in the relay's event loop, for example in a signal handler."""
        self._stopping.set()
        self._session.stop()

    async def run(self) -> None:
        """Publish until :meth:`stop`; then record outcomes, release the lanes and return within 10 s (G27).

        The relay waits and retries while PostgreSQL or Kafka is unavailable, during a failover (G35), and
        while PostgreSQL rejects a statement.

        Raises:
            ExceptionGroup: A defect of the relay.
        """
        _log.info("relay started", relay=self._name)
        await self._run_session()
        while not self._stopping.is_set():
            self._session = self._new_session()
            await self._run_session()
        self._signal(RelaySignal.STOPPED)
        _log.info("relay stopped", relay=self._name)

    async def _run_session(self) -> None:
        """Run a session until the history of PostgreSQL changes or the relay is stopped."""
        try:
            await self._session.run(self._stopping)
        except* HistoryChanged as changed:
            _log.error(
                "relay starts a new session: the history of PostgreSQL has changed",
                error_code=HistoryChanged.error_code,
                reason=str(changed.exceptions[0]),
            )
            self._signal(RelaySignal.HISTORY_CHANGED)
            await wait_at_most(self._stopping, _START_OVER_PAUSE_S)


class TopicsFirst:
    """Start a relay only after every topic of ``OUTBOX_TOPICS`` exists.

    If a topic were missing, its rows would fail and block their keys (G24), although the rows are correct.
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
        """Make :meth:`run` return, as :meth:`Relay.stop` does."""
        self._stopping.set()
        self._relay.stop()

    async def run(self) -> None:
        """Wait for Kafka, create or check the topics, and publish until :meth:`stop`.

        Raises:
            TopicsNotReady: A topic is missing and cannot be created. The message has the name of the topic,
                and what to do.
            ExceptionGroup: A defect of the relay, as :meth:`Relay.run`.
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
        """Create missing topics if ``RELAY_CREATE_TOPICS`` allows it; return the limits of all topics.

        Returns:
            ``max.message.bytes`` by name, for each topic of ``OUTBOX_TOPICS``.

        Raises:
            TopicsNotReady: A topic is missing, and the relay must not or cannot create it.
            LinkDown, BrokerAway: No broker responds.
        """
        limits = await asyncio.to_thread(self._ask)
        missing = sorted(self._outbox.declared() - limits.keys())
        if not missing:
            return limits
        if not self._settings.create_topics:
            raise TopicsNotReady(
                f"no topic {', '.join(map(repr, missing))} on the broker; create the topics of OUTBOX_TOPICS "
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
        """Log a warning for each topic whose limit is below ``OUTBOX_MESSAGE_BYTES_MAX`` (G34).

        The outbox accepts a row whose size is between the two limits, but the row would become FAILED.

        Args:
            limits: ``max.message.bytes`` by topic.
        """
        for topic, bytes_max in sorted(limits.items()):
            if bytes_max < self._outbox.message_bytes_max:
                _log.warning(
                    "a topic accepts smaller messages than the outbox: raise its max.message.bytes, "
                    "or lower OUTBOX_MESSAGE_BYTES_MAX",
                    topic=topic,
                    topic_bytes_max=bytes_max,
                    outbox_bytes_max=self._outbox.message_bytes_max,
                )
