"""Deliver at least once: one idempotent producer for all lanes (slices of keys)."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Producer

from relaybox.db import DedicatedConnection
from relaybox.kafka import RECORD_REJECTED, CallThreads
from relaybox.relay._batches import Batch, Outcome, Prepared
from relaybox.relay._errors import LinkDown, RecordRefused
from relaybox.relay._kafka import (
    BATCH_BYTES_MAX,
    PRODUCER,
    UNDELIVERED,
    BrokerClient,
    batch_bytes_for,
    client_settings,
    discard,
    flush,
    map_link_errors,
    produce,
    warm_up,
)
from relaybox.relay._messages import Message, screen, topics_exceeded, withhold
from relaybox.relay._postgres import Lane
from relaybox.settings import Compression, KafkaSettings
from relaybox.topics import PartitionWatch

__all__ = ("STALL_S", "AtLeastOnce", "acknowledged_in_order")

T = TypeVar("T")
_PRODUCER: Final[dict[str, Any]] = {
    **PRODUCER,
    # A gap in a partition's sequence is a fatal error: no record may follow one that failed (G34).
    "enable.gapless.guarantee": True,
    # No timeout per record, because dropping single records would break the order of keys. The relay has its
    # own timeout and then replaces the producer.
    "message.timeout.ms": 0,
    "retry.backoff.ms": 20,
    # A frozen broker does not respond to the requests that it received. librdkafka repeats them after this
    # time, or when it learns the new leaders, up to 2 s after the controller has elected them.
    "socket.timeout.ms": 5_000,
    "topic.metadata.refresh.interval.ms": 2_000,
    # librdkafka's default. Unset, it would be three times the interval above; but in an outage the producer
    # has to use older metadata.
    "metadata.max.age.ms": 900_000,
}
#: The link is down if no acknowledgement arrives for this long. Until broker.session.timeout.ms (9 s by
#: default) has passed, a frozen replica counts as in sync, and its partitions acknowledge no record.
STALL_S: Final = 10.0


class AtLeastOnce:
    """One idempotent producer for all lanes; implements :class:`~relaybox.relay._batches.Delivery`.

    Invariant: a producer that failed to deliver a record is purged and never used again; the next producer
    publishes the rows that are PENDING then. If a row of a batch is at fault, the batch publishes no later
    row of its key (G34).
    """

    one_batch_at_a_time = True

    def __init__(
        self, settings: KafkaSettings, *, compression: Compression, partitions: PartitionWatch
    ) -> None:
        self._partitions = partitions
        self._connection = client_settings(settings)
        self._producing = {**self._connection, "compression.type": compression}
        self._link = BrokerClient(self._connection)
        self._producer: Producer | None = None
        self._batch_bytes = BATCH_BYTES_MAX
        self._give_up_at_s = float("inf")
        #: Returns the deadline, by ``time.monotonic()``, of the batch that is being published.
        self._batch_deadline: Callable[[], float] = self._deadline
        self._thread = CallThreads(1, "relay-publisher")

    async def connect(self) -> None:
        """Create a new producer, and connect it to a broker."""
        await self._in_thread(self._connect)

    def ready(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return all of *lanes*: no takeover is needed, because a new owner may publish rows again."""
        return list(lanes)

    def paused_lanes(self) -> frozenset[int]:
        """Return an empty set: pauses save the fixed cost of transactions, and this delivery has none."""
        return frozenset()

    async def prepare(self, messages: Sequence[Message]) -> Prepared:
        """Return one batch of the rows whose partitions accept writes; :meth:`publish` finds faulty rows."""
        outcome = Outcome()
        self._partitions.add({message.topic for message in messages})
        if self._partitions.unavailable:
            messages, held = withhold(messages, self._partitions.unavailable)
            outcome.faulty += held
        batch = Batch(messages=messages, lanes=frozenset(message.lane for message in messages))
        return Prepared(batches=[batch] if messages else [], outcome=outcome)

    def publish(self, batch: Batch) -> asyncio.Task[Outcome]:
        """Publish *batch*; the returned task ends when each row is acknowledged or known to have failed."""
        self._batch_deadline = self._partitions.deadline_of_batch(self._deadline)
        return asyncio.create_task(self._run(batch.messages))

    async def claim(self, connection: DedicatedConnection, batches: Sequence[Batch]) -> None:
        """Do nothing: at-least-once delivery needs no claims."""

    def note_recorded(self, batch: Batch) -> None:
        """Do nothing: this delivery keeps no state of recorded batches."""

    async def trim_claims(self, connection: DedicatedConnection) -> None:
        """Do nothing: there are no claims."""

    def take_link_failure(self) -> LinkDown | None:
        """Return None: only batches use the link to Kafka, and their outcomes contain its failures."""
        return None

    def stuck_lanes(self) -> dict[int, str]:
        """Return an empty dict: all lanes share one producer, and its failures open the circuit breaker."""
        return {}

    def hung(self) -> bool:
        """Return whether a call in the publishing thread takes over 60 s."""
        return self._thread.hung()

    def set_deadline(self, monotonic_s: float) -> None:
        """Wait for acknowledgements only until *monotonic_s*, by ``time.monotonic()``."""
        self._give_up_at_s = monotonic_s

    async def serve_callbacks(self) -> None:
        """Execute due callbacks of the admin client."""
        await self._in_thread(self._link.serve_callbacks)

    async def close(self) -> None:
        """Discard unacknowledged records, and close all clients."""
        self._give_up_at_s = 0.0
        await self._in_thread(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, messages: Sequence[Message]) -> Outcome:
        outcome = await self._in_thread(partial(self._publish, messages))
        if outcome.link is not None:
            self._partitions.check_now()
        return outcome

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _connect(self) -> None:
        self._drop_producer()
        self._link.connect()
        self._producer = self._new_producer()

    def _close(self) -> None:
        self._drop_producer()
        self._link.close()

    def _publish(self, messages: Sequence[Message]) -> Outcome:
        outcome = Outcome()
        try:
            screened = screen(messages, self._limits(messages))
            if exceeded := topics_exceeded(screened):
                self._link.refresh_limits(exceeded)
                screened = screen(messages, self._limits(messages))
            outcome.faulty += screened.faulty
            self._publish_all(screened.publishable, outcome)
        except LinkDown as down:
            self._close()
            outcome.link = down
            sent = {message.seq for message in outcome.sent}
            faulty = {message.seq for message, _ in outcome.faulty}
            outcome.interrupted = [m for m in messages if m.seq not in sent and m.seq not in faulty]
        return outcome

    def _limits(self, messages: Sequence[Message]) -> dict[str, int]:
        wanted = {message.topic for message in messages}
        limits = dict(self._link.limits(wanted))
        batch_bytes = batch_bytes_for(wanted, limits)
        if self._producer is None or batch_bytes < self._batch_bytes:
            self._batch_bytes = min(batch_bytes, self._batch_bytes)
            self._drop_producer()
            self._producer = self._new_producer()
        return limits

    def _new_producer(self) -> Producer:
        with map_link_errors():
            producer = Producer({**self._producing, **_PRODUCER, "batch.size": self._batch_bytes})
        warm_up(producer)
        return producer

    def _publish_all(self, messages: Sequence[Message], outcome: Outcome) -> None:
        results = self._deliver(messages)
        outcome.sent += acknowledged_in_order(messages, results)
        if len(outcome.sent) == len(messages):
            return
        failures = [error for error in results if error is not None]
        if all(error.code() not in RECORD_REJECTED for error in failures):
            raise self._link.link_down(failures)
        # A limit was lowered, or a topic deleted, since the limits were read. The broker rejects a request as
        # a whole, so its error does not identify a row: publish the unacknowledged rows one by one.
        self._drop_producer()
        self._link.forget_limits()
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
            if error.code() not in RECORD_REJECTED:
                raise self._link.link_down([error])
            outcome.faulty.append((message, RecordRefused.by(error)))
            if message.key is not None:
                waiting.add(message.key)
            self._drop_producer()

    def _deliver(self, messages: Sequence[Message]) -> list[KafkaError | None]:
        """Publish *messages*; return, in their order, the error of each message, or None if acknowledged."""
        producer = self._producer
        assert producer is not None
        results: list[KafkaError | None] = [None] * len(messages)
        for place, message in enumerate(messages):
            try:
                produce(
                    producer, message, partial(_note_report, results, place), self._batch_deadline, STALL_S
                )
            except KafkaException as error:
                results[place:] = [error.args[0], *[UNDELIVERED] * (len(messages) - place - 1)]
                break
        if not flush(producer, self._batch_deadline, STALL_S) and not self._drop_producer():
            # The reports of some purged records are missing: these records count as not acknowledged.
            return [error or UNDELIVERED for error in results]
        return results

    def _deadline(self) -> float:
        return self._give_up_at_s

    def _drop_producer(self) -> bool:
        """Purge the producer; return whether the delivery report of each unacknowledged record arrived."""
        producer, self._producer = self._producer, None
        return producer is None or discard(producer)


def acknowledged_in_order(messages: Sequence[Message], results: Sequence[KafkaError | None]) -> list[Message]:
    """Return the acknowledged *messages*, without those behind an unacknowledged message of the same key.

    Kafka has acknowledged such a message, but not its predecessor. The relay publishes the message again
    after the predecessor, so the topic contains the message twice, the second time in order.

    Args:
        messages: Messages of a batch, in order.
        results: Error of each message; None if acknowledged.
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
