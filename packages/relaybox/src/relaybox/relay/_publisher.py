"""Handing batches to Kafka and learning what became of them."""

import logging
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient

from relaybox.relay._errors import LinkDown, RecordRefused, RowFault
from relaybox.relay._messages import Message, screen
from relaybox.relay._topics import TopicLimits
from relaybox.settings import KafkaSettings

__all__ = ("Outcome", "Publisher", "acknowledged_in_order")

#: Without one acknowledgement for this long the link counts as down.
_STALL_S: Final = 5.0
_FLUSH_S: Final = 0.25
_CONNECT_S: Final = 2.0
#: Topics whose limits are asked for before a row needs them; an answer may take 0.5 s on a fresh connection.
_TOPICS_LEARNT: Final = 100
_BATCH_BYTES: Final = 1_000_000
#: Record batches stay this much below the smallest topic's limit: framing.
_BATCH_MARGIN_BYTES: Final = 512
#: Only fatal errors pass ``log_level`` 0, and those come with the delivery reports.
_SILENCE: Final = logging.getLogger("relaybox.relay.librdkafka")
_SILENCE.propagate = False
_SILENCE.addHandler(logging.NullHandler())
_CONNECTION: Final[dict[str, Any]] = {
    "client.id": "relaybox-relay",
    # librdkafka would write to stderr; what matters reaches the log through our errors.
    "log_level": 0,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1_000,
    "socket.timeout.ms": 10_000,
    "socket.nagle.disable": True,
}
_PRODUCER: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    # A gap in a partition's sequence is a fatal error: nothing may follow a record that failed (G34).
    "enable.gapless.guarantee": True,
    # The relay times out itself (_STALL_S) and replaces the producer; one that drops single records reorders.
    "message.timeout.ms": 0,
    "linger.ms": 2,
    "retry.backoff.ms": 20,
    # The topic's own limit decides (screen); a second one here would only differ from it.
    "message.max.bytes": 104_857_600,
    # Java's default, so that every client puts a key into the same partition.
    "partitioner": "murmur2_random",
}
#: Verdicts about the record itself, not about the link. Everything else charges nobody.
_ROW_CODES: Final = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's local codes are spelled so
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._INVALID_ARG,  # noqa: SLF001
    }
)
#: What the relay itself took back; says nothing about why.
_PURGED: Final = frozenset({KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT})  # noqa: SLF001
_UNDELIVERED: Final = KafkaError(KafkaError._PURGE_QUEUE)  # noqa: SLF001
Report = Callable[[KafkaError | None, object], None]


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of a batch. Rows that are in no list are as they were: PENDING."""

    #: Acknowledged by the broker, and so is every earlier row of their keys in the batch.
    sent: list[Message] = field(default_factory=list[Message])
    #: Failed through their own fault; nothing behind them was published.
    faulty: list[tuple[Message, RowFault]] = field(default_factory=list[tuple[Message, RowFault]])
    #: Set when the link failed: nothing may be published before :meth:`Publisher.connect` succeeds.
    link: LinkDown | None = None


class Publisher:
    """One idempotent producer at a time, and what the broker accepts.

    Invariant: a producer that failed to deliver a record is purged and never used again; its
    successor starts from the table. Within a batch, nothing of a key follows a record of it that
    is not known to be publishable (G34).

    Blocking: everything but :meth:`give_up_at` belongs to one thread.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._connection = {**_CONNECTION, **settings.client()}
        self._producer: Producer | None = None
        self._batch_bytes = _BATCH_BYTES
        self._admin: AdminClient | None = None
        self._topics: TopicLimits | None = None
        self._last_error = "no answer"
        self._give_up_at = float("inf")

    def connect(self) -> None:
        """Reach a broker, learn anew what it accepts, and warm up: the first event then takes as long as any.

        Raises:
            LinkDown: none answered in time.
        """
        self.close()
        conf: dict[str, Any] = {**self._connection, "error_cb": self._note_error}
        self._admin = AdminClient(conf)
        with _link_faults():
            topics = sorted(self._admin.list_topics(timeout=_CONNECT_S).topics)[:_TOPICS_LEARNT]
        limits = TopicLimits(self._admin)
        limits.of(topics)
        self._producer = self._new_producer()
        self._topics = limits

    def give_up_at(self, monotonic_s: float) -> None:
        """Wait for no acknowledgement past this time; called by the loop when it stops."""
        self._give_up_at = monotonic_s

    def publish(self, messages: Sequence[Message]) -> Outcome:
        """Publish *messages* in order and wait until each is acknowledged or known not to be."""
        try:
            limits = self._limits(messages)
        except LinkDown as down:
            return Outcome(link=down)
        screened = screen(messages, limits)
        outcome = Outcome(faulty=screened.faulty)
        try:
            self._publish_all(screened.publishable, outcome)
        except LinkDown as down:
            self.close()
            outcome.link = down
        return outcome

    def serve(self) -> None:
        """Let librdkafka hand out what it noted while nothing was published."""
        if self._admin is not None:
            self._admin.poll(0)

    def close(self) -> None:
        """Drop everything that is not acknowledged, and the connections."""
        self._drop_producer()
        self._topics = self._admin = None

    def _limits(self, messages: Sequence[Message]) -> dict[str, int]:
        if self._topics is None:
            self.connect()
        assert self._topics is not None
        wanted = {message.topic for message in messages}
        limits = dict(self._topics.of(wanted))
        # A request is refused as a whole: a record batch over the limit would fail rows that are small.
        smallest = min((limits[topic] for topic in wanted & limits.keys()), default=_BATCH_BYTES)
        batch_bytes = max(1, min(self._batch_bytes, smallest - _BATCH_MARGIN_BYTES))
        if self._producer is None or batch_bytes < self._batch_bytes:
            self._batch_bytes = batch_bytes
            self._drop_producer()
            self._producer = self._new_producer()
        return limits

    def _new_producer(self) -> Producer:
        conf: dict[str, Any] = {**self._connection, **_PRODUCER, "batch.size": self._batch_bytes}
        producer = Producer(conf | {"logger": _SILENCE})
        with _link_faults():  # left to itself it would connect with the first record
            producer.list_topics(timeout=_CONNECT_S)
        return producer

    def _publish_all(self, messages: Sequence[Message], outcome: Outcome) -> None:
        results = self._deliver(messages)
        outcome.sent += acknowledged_in_order(messages, results)
        if len(outcome.sent) == len(messages):
            return
        failures = [error for error in results if error is not None]
        if all(error.code() not in _ROW_CODES for error in failures):
            raise LinkDown(f"Kafka takes no records: {self._why(failures)}; check the brokers")
        # The limits have changed since they were read. The broker refuses a request as a whole, so its
        # verdict tells nothing about a row: ask for each alone, from the first that is not there.
        self._drop_producer()
        self._topics = None
        sent = {message.seq for message in outcome.sent}
        self._publish_singly([message for message in messages if message.seq not in sent], outcome)

    def _publish_singly(self, messages: Sequence[Message], outcome: Outcome) -> None:
        screened = screen(messages, self._limits(messages))
        outcome.faulty += screened.faulty
        waiting: set[str] = set()
        for message in screened.publishable:
            if message.key in waiting:
                continue
            self._limits([message])
            [error] = self._deliver([message])
            if error is None:
                outcome.sent.append(message)
                continue
            if error.code() not in _ROW_CODES:
                raise LinkDown(f"Kafka takes no records: {self._why([error])}; check the brokers")
            outcome.faulty.append(
                (message, RecordRefused(f"the broker refused the record: {error.name()}: {error.str()}"))
            )
            if message.key is not None:
                waiting.add(message.key)
            self._drop_producer()

    def _deliver(self, messages: Sequence[Message]) -> list[KafkaError | None]:
        """Produce and wait; per message None for acknowledged, else why it is not."""
        producer = self._producer
        assert producer is not None
        results: list[KafkaError | None] = [_UNDELIVERED] * len(messages)
        for place, message in enumerate(messages):
            try:
                self._produce(producer, message, partial(_note_report, results, place))
            except KafkaException as error:
                results[place] = error.args[0]
                break
        if not self._flush(producer):
            self._drop_producer()
        return results

    def _produce(self, producer: Producer, message: Message, report: Report) -> None:
        stalled_at = time.monotonic() + _STALL_S
        headers: Any = message.headers
        while True:
            try:
                producer.produce(
                    message.topic, message.value, message.key, on_delivery=report, headers=headers
                )
            except BufferError:  # librdkafka's queue is full: wait for acknowledgements
                if time.monotonic() > min(stalled_at, self._give_up_at):
                    raise KafkaException(_UNDELIVERED) from None
                producer.poll(_FLUSH_S)
            else:
                return

    def _flush(self, producer: Producer) -> bool:
        """Wait for acknowledgements as long as they come; whether all have come."""
        left = len(producer)
        stalled_at = time.monotonic() + _STALL_S
        while left:
            before, left = left, _flush_once(producer)
            now = time.monotonic()
            if left < before:
                stalled_at = now + _STALL_S
            elif now > min(stalled_at, self._give_up_at):
                return False
        return True

    def _drop_producer(self) -> None:
        if self._producer is None:
            return
        self._producer.purge(in_queue=True, in_flight=True, blocking=True)
        _flush_once(self._producer)  # hands out the reports of what was purged
        self._producer = None

    def _note_error(self, error: KafkaError) -> None:
        self._last_error = error.str()

    def _why(self, failures: Sequence[KafkaError]) -> str:
        told = [error.str() for error in failures if error.code() not in _PURGED]
        return told[0] if told else f"no acknowledgement in time, {self._last_error}"


def _flush_once(producer: Producer) -> int:
    """Wait for reports a while; how many are still to come."""
    try:
        return producer.flush(_FLUSH_S)
    except (KafkaException, SystemError):
        # The binding raises a fatal error (a gap, see _PRODUCER) in the midst of the reports: the one at hand
        # was noted and ends as SystemError, the others come with the next call. They say all there is to say.
        return len(producer)


@contextmanager
def _link_faults() -> Generator[None]:
    try:
        yield
    except KafkaException as error:
        raise LinkDown(f"no Kafka broker can be reached ({error.args[0].str()}); check KAFKA_HOST") from error


def acknowledged_in_order(messages: Sequence[Message], results: Sequence[KafkaError | None]) -> list[Message]:
    """Those acknowledged, without any that follow an unacknowledged one of their key.

    Such a one landed too early. It is published again after its predecessor: a duplicate, but the
    topic then holds them in order.
    """
    sent: list[Message] = []
    waiting: set[str] = set()
    for message, error in zip(messages, results, strict=True):
        if error is not None and message.key is not None:
            waiting.add(message.key)
        elif error is None and message.key not in waiting:
            sent.append(message)
    return sent


def _note_report(
    results: list[KafkaError | None], place: int, error: KafkaError | None, _message: object
) -> None:
    results[place] = error
