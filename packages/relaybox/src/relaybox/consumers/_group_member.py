"""The connection to Kafka: every call blocks, and all are made by one thread."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import confluent_kafka
import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from relaybox.consumers._errors import KafkaRefused
from relaybox.consumers._message import Message, Partition, message_from_kafka
from relaybox.kafka import ConnectionDiagnosis
from relaybox.settings import KafkaSettings

__all__ = ("Assigned", "GroupMember", "PollRequest", "PollResult", "Revoked")

_log: Final = structlog.stdlib.get_logger(__name__)
_BATCH_MESSAGES_MAX: Final = 500
#: The least time between two commits of offsets: what is committed late is only read again.
_COMMIT_S: Final = 0.2
_PROBE_S: Final = 0.2
#: Trouble of one kind is told again after this time.
_NOTICE_S: Final = 60.0
#: Errors that no waiting mends.
_REFUSALS: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - the client's public name for it
        KafkaError.INCONSISTENT_GROUP_PROTOCOL,
    }
)
#: Errors that say that no broker was reached, or not as we asked.
_AWAY: Final = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001 - librdkafka's local codes are spelled so
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
    }
)


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """These partitions are ours from now on."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, kw_only=True)
class Revoked:
    """These partitions are ours no longer; what was done of them is committed if it could be."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, kw_only=True)
class PollRequest:
    """What to tell Kafka before the next read."""

    #: Offsets to commit: where a successor would start.
    positions: dict[Partition, int] = field(default_factory=dict[Partition, int])
    pause: tuple[Partition, ...] = ()
    resume: tuple[Partition, ...] = ()


@dataclass(kw_only=True)
class PollResult:
    """What one read brought, changes of the assignment before messages."""

    changes: list[Assigned | Revoked] = field(default_factory=list[Assigned | Revoked])
    messages: list[Message] = field(default_factory=list[Message])
    #: Per partition the offset after the last message read, those for others included.
    read_to: dict[Partition, int] = field(default_factory=dict[Partition, int])
    committed: dict[Partition, int] = field(default_factory=dict[Partition, int])
    #: Messages that their header showed to be for others.
    skipped: int = 0

    def forget(self, partitions: tuple[Partition, ...]) -> None:
        """Drop what was read of partitions that were taken away in the same read."""
        self.messages = [message for message in self.messages if message.partition not in partitions]
        for partition in partitions:
            self.read_to.pop(partition, None)


class GroupMember:
    """A member of a consumer group. Every method is called by one and the same thread.

    librdkafka keeps the membership alive and fetches in threads of its own; ``read`` must be called
    at least every five minutes (``max.poll.interval.ms``), whatever the handlers do.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str,
        topics: Iterable[str],
        event_types: frozenset[str],
        position_of: Callable[[Partition], int | None],
    ) -> None:
        """Join the group.

        Raises:
            KafkaRefused: a certificate or key cannot be used.
        """
        self._event_types = event_types
        self._topics = tuple(topics)
        self._position_of = position_of
        self._result = PollResult()
        self._committing = False
        self._commit_at_s = 0.0
        self._fatal: KafkaError | None = None
        self._diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
        self._told_at_s: dict[int, float] = {}
        #: True while no broker answers.
        self.away = False
        try:
            self._kafka = confluent_kafka.Consumer(
                {
                    **_configuration(settings, group),
                    "error_cb": self._on_error,
                    "on_commit": self._on_commit,
                }
            )
        except KafkaException as error:
            raise KafkaRefused(self._diagnosis.message(error.args[0])) from error
        self._kafka.subscribe(
            list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, request: PollRequest, wait_s: float) -> PollResult:
        """Carry out *request*, then wait up to *wait_s* seconds for a message and take all that are there.

        Raises:
            KafkaRefused: Kafka refuses this consumer for good.
        """
        self._result = result = PollResult()
        try:
            self._carry_out(request)
            self._fetch(wait_s)
        except KafkaException as error:
            raise KafkaRefused(f"Kafka's client gave up: {error}; look at the broker, start again") from error
        if self._fatal is not None:
            raise KafkaRefused(_refusal(self._fatal, self._diagnosis))
        return result

    def close(self) -> None:
        """Commit what is done, leave the group and close; partitions go to other members at once."""
        self._kafka.close()

    def _carry_out(self, request: PollRequest) -> None:
        if request.pause:
            self._kafka.pause(_topic_partitions(request.pause))
        if request.resume:
            self._kafka.resume(_topic_partitions(request.resume))
        now_s = monotonic()
        if request.positions and not self._committing and now_s >= self._commit_at_s:
            self._kafka.commit(offsets=_offsets(request.positions), asynchronous=True)
            self._committing, self._commit_at_s = True, now_s + _COMMIT_S

    def _fetch(self, wait_s: float) -> None:
        if self.away:
            self._look_for_brokers()
        first = self._kafka.poll(wait_s)
        if first is not None:
            self._take(first)
            # Only what has arrived already: consume() with a wait would wait for a full batch.
            for message in self._kafka.consume(_BATCH_MESSAGES_MAX, 0):
                self._take(message)

    def _look_for_brokers(self) -> None:
        """Nothing tells an idle member that brokers are back; one cheap question does."""
        try:
            self._kafka.list_topics(next(iter(self._topics)), timeout=_PROBE_S)
        except KafkaException:
            return
        self.away = False
        _log.info("Kafka answers again")

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            self._on_error(error)
            return
        self.away = False
        taken = message_from_kafka(message)
        self._result.read_to[taken.partition] = taken.offset + 1
        if taken.header_type is not None and taken.header_type not in self._event_types:
            self._result.skipped += 1
            return
        self._result.messages.append(taken)

    def _on_assign(self, _kafka: Any, partitions: list[TopicPartition]) -> None:
        self.away = False
        self._result.changes.append(Assigned(partitions=_pairs(partitions)))

    def _on_revoke(self, kafka: Any, partitions: list[TopicPartition]) -> None:
        pairs = _pairs(partitions)
        positions = {pair: at for pair in pairs if (at := self._position_of(pair)) is not None}
        self._revoked(pairs)
        if not positions:
            return
        try:
            kafka.commit(offsets=_offsets(positions), asynchronous=False)
        except KafkaException as error:
            # The successor reads some events again; their effects are not repeated (G40).
            _log.warning("offsets not committed before a hand-over", reason=error.args[0].str())

    def _on_lost(self, _kafka: Any, partitions: list[TopicPartition]) -> None:
        self._revoked(_pairs(partitions))

    def _revoked(self, partitions: tuple[Partition, ...]) -> None:
        self._result.forget(partitions)
        self._result.changes.append(Revoked(partitions=partitions))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._committing = False
        if error is not None:
            _log.debug("offsets not committed; trying again", reason=error.str())
            return
        for one in partitions:
            if one.error is None:
                self._result.committed[one.topic, one.partition] = one.offset

    def _on_error(self, error: KafkaError) -> None:
        code = error.code()
        if error.fatal() or code in _REFUSALS:
            self._fatal = error
            return
        self.away = self.away or code == KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - public name
        now_s = monotonic()
        if now_s - self._told_at_s.get(code, float("-inf")) > _NOTICE_S:
            self._told_at_s[code] = now_s
            self._diagnosis.reset()
            reason = self._diagnosis.message(error) if code in _AWAY else error.str()
            _log.warning("trouble with Kafka; trying again", reason=reason, code=error.name())


def _refusal(error: KafkaError, diagnosis: ConnectionDiagnosis) -> str:
    if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - public name
        diagnosis.reset()
        return diagnosis.message(error)
    return f"Kafka refuses the consumer: {error.str()}; check its rights and group"


def _configuration(settings: KafkaSettings, group: str) -> dict[str, Any]:
    return {
        **settings.client_config(),
        "group.id": group,
        "client.id": f"relaybox-{group}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        # Partitions that stay go on being read while others move.
        "partition.assignment.strategy": "cooperative-sticky",
        # A killed member's partitions are free after 6 s, the least a broker allows by default.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_500,
        # The broker answers a fetch as soon as there is one byte; an idle one is held for 500 ms.
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": 500,
        "fetch.error.backoff.ms": 100,
        "fetch.queue.backoff.ms": 50,
        "queued.max.messages.kbytes": 16_384,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        # A topic that is created later is found within this time.
        "topic.metadata.refresh.interval.ms": 5_000,
        "socket.keepalive.enable": True,
        "socket.timeout.ms": 10_000,
        # librdkafka would write a line per attempt to stderr; what matters comes by error_cb.
        "log_level": 2,
    }


def _pairs(partitions: Iterable[TopicPartition]) -> tuple[Partition, ...]:
    return tuple((one.topic, one.partition) for one in partitions)


def _topic_partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, number in partitions]


def _offsets(positions: dict[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()]
