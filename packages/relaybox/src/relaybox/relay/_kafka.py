"""The relay's Kafka clients: settings, threads, calls of producers, limits of topics."""

import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from relaybox.kafka import (
    TOPIC_CHARS_MAX,
    UNAUTHORIZED,
    UNKNOWN_TOPIC,
    UNREACHABLE,
    ConnectionDiagnosis,
    settings_to_check,
    topic_configs,
)
from relaybox.relay._errors import LinkDown
from relaybox.relay._messages import Message, record_of
from relaybox.settings import KafkaSettings

__all__ = (
    "BATCH_BYTES_MAX",
    "PRODUCER",
    "STALL_S",
    "UNDELIVERED",
    "BrokerClient",
    "Report",
    "TopicLimits",
    "batch_bytes_for",
    "client_settings",
    "discard",
    "flush",
    "map_link_errors",
    "produce",
    "warm_up",
)

_RESPONSE_S: Final = 5.0
_LIMIT: Final = "max.message.bytes"
#: Kafka's default, used if the relay has no right to read a topic's configuration.
_LIMIT_BYTES: Final = 1_048_588
_log = structlog.get_logger(__name__)
#: Time without an acknowledgement after which a transaction has failed.
STALL_S: Final = 5.0
#: Librdkafka's ``batch.size`` unless a topic has a lower limit.
BATCH_BYTES_MAX: Final = 1_000_000
#: Bytes by which record batches are smaller than the lowest limit of their topics, for framing.
_BATCH_MARGIN_BYTES: Final = 512
_FLUSH_S: Final = 0.25
_CONNECT_S: Final = 2.0
#: Number of topics whose limits the relay reads when it connects, so that no row waits for the response. On a
#: new connection the response takes up to 0.5 s.
_TOPICS_LEARNT: Final = 100
#: Logger without output: with ``log_level`` 0 it gets fatal errors only, which delivery reports contain too.
_SILENCE: Final = logging.getLogger("relaybox.relay.librdkafka")
_SILENCE.propagate = False
_CONNECTION: Final[dict[str, Any]] = {
    "client.id": "relaybox-relay",
    # Disables librdkafka's log on standard error; the relay's errors have the reasons.
    "log_level": 0,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "socket.timeout.ms": 10_000,
    # A frozen broker accepts connections and does not respond. Lanes whose coordinator froze wait 12 s, and
    # would wait 20 s with the default of 10 s.
    "api.version.request.timeout.ms": 3_000,
    "socket.nagle.disable": True,
}
#: Settings of the producers of both deliveries.
PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    # The relay flushes each batch, which ends this wait. A shorter wait would send a batch in parts: with 2
    # ms a backlog is published 10 % slower.
    "linger.ms": 100,
    # No limit here, because screen() checks the limit of each topic.
    "message.max.bytes": 104_857_600,
    # The default of Java clients, so that all clients choose the same partition for a key.
    "partitioner": "murmur2_random",
    "logger": _SILENCE,
    # Report failures only: a flushed record without a report was acknowledged.
    "delivery.report.only.error": True,
}
#: Errors of records that the relay purged; these errors do not contain the cause of the failure.
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001
UNDELIVERED: Final = KafkaError(KafkaError._PURGE_QUEUE)  # noqa: SLF001
#: What to check if a broker or librdkafka refused, and the text of the error names no setting.
_USE: Final = "the brokers, the permissions of the relay's account, and the KAFKA_ settings"
Report = Callable[[KafkaError | None, object], None]


class TopicLimits:
    """Cache of ``max.message.bytes`` by topic, read once per topic and connection.

    Missing topics are not cached, because they may be created later. :meth:`refresh` reads the limit of a
    topic again when a record exceeds the limit, which may have been raised. All methods except
    :meth:`cached` block: call them in the thread of the :class:`BrokerClient`.
    """

    def __init__(self, admin: AdminClient) -> None:
        self._admin = admin
        self._bytes_max: dict[str, int] = {}

    def cached(self, topics: Iterable[str]) -> Mapping[str, int] | None:
        """Return all cached limits if *topics* are cached, else None."""
        return self._bytes_max if self._bytes_max.keys() >= set(topics) else None

    def of(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Return the limits of *topics* and of all cached topics, without topics that do not exist.

        Raises:
            LinkDown: No broker responds.
        """
        # A broker closes the connection for a name over 32,767 bytes, which would look like an outage.
        unknown = sorted(
            topic for topic in set(topics) - self._bytes_max.keys() if len(topic) <= TOPIC_CHARS_MAX
        )
        try:
            configs = topic_configs(self._admin, unknown, _RESPONSE_S)
        except TimeoutError as error:
            raise LinkDown(
                "no broker returned the topics' configuration in time; check KAFKA_HOST and the brokers"
            ) from error
        for topic, config in configs.items():
            if isinstance(config, KafkaError):
                self._note_error(topic, config)
            else:
                self._bytes_max[topic] = int(config[_LIMIT] or _LIMIT_BYTES)
        return self._bytes_max

    def refresh(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Read the limits of *topics* again; return the limits of all cached topics.

        Raises:
            LinkDown: No broker responds.
        """
        for topic in topics:
            self._bytes_max.pop(topic, None)
        return self.of(topics)

    def _note_error(self, topic: str, error: KafkaError) -> None:
        if error.code() in UNKNOWN_TOPIC:
            return
        if error.code() not in UNAUTHORIZED:
            raise LinkDown(f"no broker returns the configuration of {topic!r}: {error.str()}; check Kafka")
        _log.warning(
            "relay cannot read max.message.bytes, and uses the default; grant DESCRIBE_CONFIGS on the topic",
            topic=topic,
        )
        self._bytes_max[topic] = _LIMIT_BYTES


_SILENCE.addHandler(logging.NullHandler())


def client_settings(settings: KafkaSettings) -> dict[str, Any]:
    """Return the connection settings of all clients of the relay."""
    return {**_CONNECTION, **settings.client_config()}


class BrokerClient:
    """Admin client of the relay. Methods block; call them in one thread, except :meth:`cached_limits`."""

    def __init__(self, connection: Mapping[str, Any]) -> None:
        self._connection = connection
        self._admin: AdminClient | None = None
        self._topics: TopicLimits | None = None
        self._diagnosis = ConnectionDiagnosis(connection["bootstrap.servers"])

    def connect(self) -> None:
        """Connect to a broker and read the limits of topics again.

        Raises:
            LinkDown: No broker responded in time.
        """
        self.close()
        topics = self.check()
        assert self._admin is not None
        limits = TopicLimits(self._admin)
        limits.of(topics[:_TOPICS_LEARNT])
        self._topics = limits

    def check(self) -> list[str]:
        """Check that a broker responds, and return the names of all topics.

        Raises:
            LinkDown: No broker responded in time.
        """
        try:
            if self._admin is None:
                conf: dict[str, Any] = {**self._connection, "error_cb": self._diagnosis.record}
                self._admin = AdminClient(conf)
            topics = sorted(self._admin.list_topics(timeout=_CONNECT_S).topics)
        except KafkaException as error:
            self.serve_callbacks()  # passes the cause to self._diagnosis
            raise LinkDown(self._diagnosis.message(error.args[0])) from error
        self._diagnosis.reset()
        return topics

    def limits(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Return ``max.message.bytes`` of *topics* and of all cached topics, without missing topics.

        Raises:
            LinkDown: No broker responds.
        """
        if self._topics is None:
            self.connect()
        assert self._topics is not None
        return self._topics.of(topics)

    def refresh_limits(self, topics: Iterable[str]) -> Mapping[str, int]:
        """Read the limits of *topics* from the brokers again; return these and all cached limits.

        Raises:
            LinkDown: No broker responds.
        """
        if self._topics is None:
            return self.limits(topics)
        return self._topics.refresh(topics)

    def cached_limits(self, topics: Iterable[str]) -> Mapping[str, int] | None:
        """Return cached limits, or None if a broker request is needed; safe in any thread."""
        limits = self._topics
        return None if limits is None else limits.cached(topics)

    def forget_limits(self) -> None:
        """Remove all cached limits; called after a batch failed, because a limit may have changed."""
        self._topics = None

    def serve_callbacks(self) -> None:
        """Execute due callbacks of the admin client."""
        if self._admin is not None:
            self._admin.poll(0)

    def close(self) -> None:
        """Close the admin client, and remove all cached limits."""
        self._topics = self._admin = None
        self._diagnosis.reset()

    def link_down(self, failures: Sequence[KafkaError]) -> LinkDown:
        """Return an error that explains why records failed with *failures*."""
        reasons = [error.str() for error in failures if error.code() not in _PURGED]
        why = reasons[0] if reasons else f"no acknowledgement in time, {self._diagnosis.reason}"
        return LinkDown(f"Kafka accepts no records: {why}; check the brokers")


def batch_bytes_for(topics: Iterable[str], limits: Mapping[str, int]) -> int:
    """Return a ``batch.size`` in bytes, at most 1,000,000, that is below the limit of each of *topics*.

    If a record batch exceeds the limit of its topic, the broker rejects all its rows, even if each is small.

    Args:
        topics: Names of topics; those without a limit are ignored.
        limits: ``max.message.bytes`` by topic.
    """
    smallest = min((limits[topic] for topic in topics if topic in limits), default=BATCH_BYTES_MAX)
    return max(1, min(BATCH_BYTES_MAX, smallest - _BATCH_MARGIN_BYTES))


def warm_up(producer: Producer) -> None:
    """Connect *producer*, so that its first record need not wait for the connection.

    Raises:
        LinkDown: No broker responded in time.
    """
    with map_link_errors():
        producer.list_topics(timeout=_CONNECT_S)


def produce(
    producer: Producer,
    message: Message,
    report: Report,
    give_up_at_s: Callable[[], float],
    stall_s: float = STALL_S,
) -> None:
    """Pass one record to librdkafka; if its queue is full, wait until acknowledgements make room.

    Args:
        producer: Producer of the record.
        message: A row that :func:`~relaybox.relay._messages.screen` accepted.
        report: Called with the error if the record fails later.
        give_up_at_s: Returns the time of ``time.monotonic()`` until which to wait at most.
        stall_s: Longest wait for room in the queue, in seconds.

    Raises:
        KafkaException: librdkafka refused the record, or its queue stayed full.
    """
    key, value, headers = record_of(message)
    stalled_at = float("inf")
    wanted: Any = headers
    while True:
        try:
            producer.produce(message.topic, value, key, message.partition, on_delivery=report, headers=wanted)
        except BufferError:  # wait for acknowledgements
            now = time.monotonic()
            stalled_at = min(stalled_at, now + stall_s)
            if now > min(stalled_at, give_up_at_s()):
                raise KafkaException(UNDELIVERED) from None
            producer.poll(_FLUSH_S)
        else:
            return


def flush(producer: Producer, give_up_at_s: Callable[[], float], stall_s: float = STALL_S) -> bool:
    """Wait until all records of *producer* are acknowledged or have failed.

    Args:
        producer: Producer with the records.
        give_up_at_s: Returns the time of ``time.monotonic()`` after which to give up; checked only after
            0.25 s in which the result of no record arrived.
        stall_s: Give up after this number of seconds in which the result of no record arrived.

    Returns:
        Whether the result of each record is known; False after giving up.
    """
    left = len(producer)
    stalled_at = time.monotonic() + stall_s
    while left:
        before, left = left, _flush_once(producer)
        now = time.monotonic()
        if left < before:
            stalled_at = now + stall_s
        elif now > min(stalled_at, give_up_at_s()):
            return False
    return True


def discard(producer: Producer) -> bool:
    """Purge unacknowledged records; return whether the delivery report of each has arrived.

    The producer must not be used afterwards.
    """
    producer.purge(in_queue=True, in_flight=True, blocking=True)
    return _flush_once(producer) == 0


def _flush_once(producer: Producer) -> int:
    """Wait at most 0.25 s for delivery reports; return the number of missing reports."""
    try:
        return producer.flush(_FLUSH_S)
    except (KafkaException, SystemError):
        # confluent-kafka raises a fatal error between two reports, also as SystemError. The callback of the
        # current report was called, and the next flush delivers the other reports, which have the reasons.
        return len(producer)


@contextmanager
def map_link_errors() -> Generator[None]:
    """Map each ``KafkaException`` in the ``with`` block to :class:`LinkDown`."""
    try:
        yield
    except KafkaException as error:
        raise _link_down(error.args[0]) from error


def _link_down(error: KafkaError) -> LinkDown:
    reason = error.str()
    if error.code() in UNREACHABLE:
        return LinkDown(f"a request to Kafka got no response ({reason}); check {settings_to_check(reason)}")
    return LinkDown(
        f"the relay cannot use Kafka ({reason}); check {settings_to_check(reason, otherwise=_USE)}"
    )
