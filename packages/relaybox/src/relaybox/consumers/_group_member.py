"""A member of a consumer group in Kafka; every call blocks, and one thread makes all of them."""

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import confluent_kafka
import structlog
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from pydantic_core import from_json

from relaybox.consumers._coordinator_clock import is_coordinated
from relaybox.consumers._errors import KafkaRefused
from relaybox.consumers._message import Message, Partition, message_from_kafka
from relaybox.kafka import FORBIDDEN, UNREACHABLE, ConnectionDiagnosis
from relaybox.settings import KafkaSettings

__all__ = ("Assigned", "GroupMember", "PollRequest", "PollResult", "Revoked")

_log: Final = structlog.stdlib.get_logger(__name__)
_BATCH_MESSAGES_MAX: Final = 500
#: Least time between two commits of offsets. After a crash, messages after the committed offset are reread.
_COMMIT_S: Final = 0.2
_PROBE_S: Final = 0.2
#: Least time between two readings of the ends of the partitions.
_ENDS_S: Final = 1.0
_UNKNOWN_OFFSET: Final = -1
#: An error of the same code is logged again after this time.
_LOG_INTERVAL_S: Final = 60.0
#: Errors that end the consumer, because waiting cannot change them.
_FATAL: Final = FORBIDDEN | {KafkaError.GROUP_AUTHORIZATION_FAILED, KafkaError.INCONSISTENT_GROUP_PROTOCOL}


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """The group assigned these partitions to this member."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, kw_only=True)
class Revoked:
    """The group revoked these partitions; their offsets were committed if that was possible."""

    partitions: tuple[Partition, ...]


@dataclass(frozen=True, kw_only=True)
class PollRequest:
    """Changes that the member applies before it reads the next messages."""

    #: Per partition the offset to commit.
    positions: dict[Partition, int] = field(default_factory=dict[Partition, int])
    #: Partitions from which no messages are fetched until they are in ``resume``.
    pause: tuple[Partition, ...] = ()
    resume: tuple[Partition, ...] = ()


@dataclass(kw_only=True)
class PollResult:
    """The result of one poll; the caller must apply ``changes`` before it adds ``messages``."""

    changes: list[Assigned | Revoked] = field(default_factory=list[Assigned | Revoked])
    messages: list[Message] = field(default_factory=list[Message])
    #: Per partition the offset after the last message read, skipped messages included.
    read_to: dict[Partition, int] = field(default_factory=dict[Partition, int])
    #: Per partition the offset that was committed since the last poll.
    committed: dict[Partition, int] = field(default_factory=dict[Partition, int])
    #: Per partition the offset after its last message, as of the last fetch; set about once a second.
    ends: dict[Partition, int] = field(default_factory=dict[Partition, int])
    #: Messages skipped because their type header has no subscription.
    skipped: int = 0
    #: Whether this poll received statistics of librdkafka (sent every 5 s) with :func:`is_coordinated` true.
    coordinated: bool = False

    def discard(self, partitions: tuple[Partition, ...]) -> None:
        """Discard messages of partitions that were revoked during the poll that returned the messages."""
        self.messages = [message for message in self.messages if message.partition not in partitions]
        for partition in partitions:
            self.read_to.pop(partition, None)
            self.ends.pop(partition, None)


class GroupMember:
    """A member of a consumer group; the same thread must call every method.

    librdkafka sends heartbeats and fetches in its own threads; ``poll`` must be called at least every
    five minutes (``max.poll.interval.ms``), however long the handlers take.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        group: str,
        topics: Iterable[str],
        event_types: frozenset[str],
        start: str,
        position_of: Callable[[Partition], int | None],
    ) -> None:
        """Join the group.

        Args:
            settings: How to reach Kafka.
            group: Name of the consumer group.
            topics: The topics to read.
            event_types: Messages whose ``ce_type`` header names another type are skipped.
            start: Where a group without committed offsets begins, ``earliest`` or ``latest``.
            position_of: Returns the offset to commit when a partition is revoked; None to commit nothing.
                Called in the thread that calls :meth:`poll` and :meth:`close`.

        Raises:
            KafkaRefused: A certificate or key cannot be used.
        """
        self._settings, self._configuration = settings, _configuration(settings, group, start)
        #: Read before the client reads the certificate files, so that each later change is noticed.
        self._file_stamps = settings.file_stamps()
        self._event_types = event_types
        self._topics = tuple(topics)
        self._position_of = position_of
        self._result = PollResult()
        self._committing = False
        self._commit_at_s = 0.0
        self._ends_at_s = 0.0
        self._fatal: KafkaError | None = None
        self._diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
        self._logged_at_s: dict[int, float] = {}
        #: True while no broker responds.
        self.unavailable = False
        #: Whether the member has lost its partitions and must be replaced to use renewed certificates.
        self.outdated = False
        callbacks = {
            "error_cb": self._on_error,
            "on_commit": self._on_commit,
            "stats_cb": self._on_statistics,
        }
        try:
            self._kafka = confluent_kafka.Consumer({**self._configuration, **callbacks})
        except KafkaException as error:
            raise KafkaRefused(self._diagnosis.message(error.args[0])) from error
        self._kafka.subscribe(
            list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, request: PollRequest, wait_s: float) -> PollResult:
        """Apply *request*, wait up to *wait_s* seconds for a message, and take up to 500 more that arrived.

        Raises:
            KafkaRefused: Kafka rejects this consumer, or the Kafka client fails; waiting cannot change that.
        """
        self._result = result = PollResult()
        try:
            self._apply(request)
            self._fetch(wait_s)
            self._read_ends()
        except KafkaException as error:
            raise KafkaRefused(
                f"the Kafka client failed: {error}; check the broker and restart the consumer"
            ) from error
        if self._fatal is not None:
            raise KafkaRefused(_refusal(self._fatal, self._diagnosis))
        return result

    def close(self) -> None:
        """Commit the offsets, leave the group and close; the group reassigns the partitions at once."""
        self._kafka.close()

    def _apply(self, request: PollRequest) -> None:
        if request.pause:
            self._kafka.pause(_topic_partitions(request.pause))
        if request.resume:
            self._kafka.resume(_topic_partitions(request.resume))
        now_s = monotonic()
        if request.positions and not self._committing and now_s >= self._commit_at_s:
            self._kafka.commit(offsets=_offsets(request.positions), asynchronous=True)
            self._committing, self._commit_at_s = True, now_s + _COMMIT_S

    def _fetch(self, wait_s: float) -> None:
        if self.unavailable:
            self._probe_brokers()
        first = self._kafka.poll(wait_s)
        if first is not None:
            self._take(first)
            # Only messages that have arrived: consume() with a timeout would wait for a full batch.
            for message in self._kafka.consume(_BATCH_MESSAGES_MAX, 0):
                self._take(message)

    def _read_ends(self) -> None:
        """Read the end offset of each partition, at most once a second.

        librdkafka knows these offsets from its last fetch, so no request is sent to a broker.
        """
        now_s = monotonic()
        if now_s < self._ends_at_s:
            return
        self._ends_at_s = now_s + _ENDS_S
        for partition in self._kafka.assignment():
            end = _UNKNOWN_OFFSET
            with suppress(KafkaException):  # a figure that is missing must not end the consumer
                _, end = self._kafka.get_watermark_offsets(partition, cached=True)
            if end >= 0:
                self._result.ends[partition.topic, partition.partition] = end

    def _probe_brokers(self) -> None:
        """Request metadata, because an idle member is not notified when brokers are available again."""
        try:
            self._kafka.list_topics(next(iter(self._topics)), timeout=_PROBE_S)
        except KafkaException:
            # Only a member without partitions is replaced: in a short outage the member keeps its partitions.
            if not self._kafka.assignment():
                self._check_files()
            return
        self.unavailable = False
        _log.info("Kafka is available again")

    def _check_files(self) -> None:
        """Set ``outdated`` if a certificate file has changed, and a client can be created from the files."""
        stamps = self._settings.file_stamps()
        if stamps == self._file_stamps:
            return
        self._file_stamps = stamps
        self._diagnosis.reset()
        try:
            confluent_kafka.Consumer(self._configuration).close()
        except KafkaException as error:
            # Perhaps the certificate is replaced already, but its key is not: the next change is checked too.
            reason = self._diagnosis.message(error.args[0])
            _log.warning("renewed certificates unusable; waiting for changed files", reason=reason)
        else:
            self.outdated = True

    def _take(self, message: Any) -> None:
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local code
                self._result.read_to[message.topic(), message.partition()] = message.offset()
            else:
                self._on_error(error)
            return
        self.unavailable = False
        converted = message_from_kafka(message)
        self._result.read_to[converted.partition] = converted.offset + 1
        header_type = converted.header_type
        if header_type is not None and header_type not in self._event_types:
            self._result.skipped += 1
            return
        self._result.messages.append(converted)

    def _on_assign(self, _kafka: Any, partitions: list[TopicPartition]) -> None:
        self.unavailable = False
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
            # The next owner of the partitions reads some events again; their effects are not repeated (G40).
            _log.warning("offsets not committed before revocation", reason=error.args[0].str())

    def _on_lost(self, _kafka: Any, partitions: list[TopicPartition]) -> None:
        self._revoked(_pairs(partitions))

    def _revoked(self, partitions: tuple[Partition, ...]) -> None:
        self._result.discard(partitions)
        self._result.changes.append(Revoked(partitions=partitions))

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._committing = False
        if error is not None:
            _log.debug("offsets not committed; retrying", reason=error.str())
            return
        for partition in partitions:
            if partition.error is None:
                self._result.committed[partition.topic, partition.partition] = partition.offset

    def _on_statistics(self, statistics: str) -> None:
        self._result.coordinated = is_coordinated(from_json(statistics))

    def _on_error(self, error: KafkaError) -> None:
        code = error.code()
        if error.fatal() or code in _FATAL:
            self._fatal = error
            return
        # An error code that librdkafka itself creates.
        self.unavailable = self.unavailable or code == KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001
        now_s = monotonic()
        if now_s - self._logged_at_s.get(code, float("-inf")) > _LOG_INTERVAL_S:
            self._logged_at_s[code] = now_s
            self._diagnosis.reset()
            reason = self._diagnosis.message(error) if code in UNREACHABLE else error.str()
            _log.warning("Kafka client error; retrying", reason=reason, code=error.name())


def _refusal(error: KafkaError, diagnosis: ConnectionDiagnosis) -> str:
    if error.code() == KafkaError._AUTHENTICATION:  # noqa: SLF001 - librdkafka's local code
        diagnosis.reset()
        return diagnosis.message(error)
    return (
        f"Kafka rejects the consumer: {error.str()}; check the permissions of its account, and that all "
        "members of its group use the same assignment protocol"
    )


def _configuration(settings: KafkaSettings, group: str, start: str) -> dict[str, Any]:
    return {
        **settings.client_config(),
        "group.id": group,
        "client.id": f"relaybox-{group}",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": start,
        # librdkafka then reports when the end of a partition is reached. The last offsets of a partition may
        # be markers of transactions, which are no messages: without the report, a consumer that has finished
        # every message would show a lag.
        "enable.partition.eof": True,
        "allow.auto.create.topics": False,
        # Partitions that are not reassigned are still read during a rebalance.
        "partition.assignment.strategy": "cooperative-sticky",
        # The partitions of a killed member are reassigned after 6 s, the least that brokers allow.
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_500,
        # The broker responds to a fetch as soon as there is one byte, and after 500 ms at the latest.
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": 500,
        "fetch.error.backoff.ms": 100,
        "fetch.queue.backoff.ms": 50,
        "queued.max.messages.kbytes": 16_384,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        # A topic created later is found within this time.
        "topic.metadata.refresh.interval.ms": 5_000,
        "socket.keepalive.enable": True,
        "socket.timeout.ms": 10_000,
        "statistics.interval.ms": 5_000,
        # librdkafka would write a line per attempt to stderr; error_cb gets the errors that matter.
        "log_level": 2,
    }


def _pairs(partitions: Iterable[TopicPartition]) -> tuple[Partition, ...]:
    return tuple((partition.topic, partition.partition) for partition in partitions)


def _topic_partitions(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for topic, number in partitions]


def _offsets(positions: dict[Partition, int]) -> list[TopicPartition]:
    return [TopicPartition(topic, number, offset) for (topic, number), offset in positions.items()]
