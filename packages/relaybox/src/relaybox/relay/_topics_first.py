"""A relay's start: the topics come before the rows."""

import asyncio
from collections.abc import Mapping
from typing import Final

import structlog

from relaybox.outbox import OutboxSettings
from relaybox.relay._backoff import link_pause_s
from relaybox.relay._ensure import BrokerAway, TopicsNotReady, check_replicas, ensure_topics
from relaybox.relay._errors import LinkDown
from relaybox.relay._keeper import wait_at_most
from relaybox.relay._link import BrokerClient, client_settings
from relaybox.relay._relay import Relay
from relaybox.relay._replication import Replication
from relaybox.settings import KafkaSettings, RelaySettings

__all__ = ("TopicsFirst",)

_log: Final = structlog.get_logger(__name__)


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
