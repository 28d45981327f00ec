"""Kafka transactions of a lane: the lane's producer, and the marker of the last committed batch (G31).

A transaction contains the records of a batch, and a *marker*: a record with the batch's id in the control
topic. After a crash the last committed marker of a lane shows which batch was published last.

What the relay knows of a transaction::

    begin ─► records and marker sent ─┬─► claimed in PostgreSQL ─► commit ─┬─► COMMITTED
             │                        │                                    └─► IN_DOUBT: read the marker
             └─► UNPUBLISHED          └─► not claimed ─► abort ─► UNCLAIMED
"""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final
from uuid import UUID, uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import OFFSET_BEGINNING, OFFSET_END, NewTopic

from relaybox.kafka import RECORD_REJECTED, retry_on_stale_metadata
from relaybox.relay._batches import LaneBatch, TransactionResult, TransactionState
from relaybox.relay._errors import LinkDown, TransactionUnfinished
from relaybox.relay._kafka import (
    PRODUCER,
    UNDELIVERED,
    Report,
    discard,
    flush,
    map_link_errors,
    produce,
)
from relaybox.topics import (
    DEFAULT_REPLICATION,
    Brokers,
    Replication,
    ReplicationImpossible,
    new_partitions,
    new_topic,
    plan_replication,
    warn_about_few_brokers,
    warn_about_single_replicas,
)

__all__ = (
    "INIT_S_MAX",
    "PRODUCERS_PER_LANE",
    "LaneProducer",
    "Markers",
    "markers_topic",
)

#: Time limit of a request about the control topic: under the 10 s of G27, as calls cannot be interrupted.
_RESPONSE_S: Final = 4.0
_RESPONSE_S_MIN: Final = 0.1
#: Longest reading of markers; with its last requests, the call takes less than the watchdog's limit, 60 s.
_READ_S_MAX: Final = 35.0
#: Number of last offsets to read first; more than 1, because aborted transactions may follow the last marker.
_LOOK_BACK: Final = 64
#: Number of transactional.ids of a lane; its producers use these ids in turn.
PRODUCERS_PER_LANE: Final = 4
#: Partitions of a new control topic; if there are more lanes, partitions are added.
_PARTITIONS: Final = 8
#: Longest initialisation of a producer. It takes 0.5 s if a transaction must end, seconds if a broker starts.
INIT_S_MAX: Final = 10.0
_INIT_S: Final = 2.0
_COMMIT_S: Final = 5.0
_COMMIT_S_MIN: Final = 0.1
#: Longest wait for PostgreSQL to confirm a claim, during which consumers wait for the open transaction.
_CLAIM_S: Final = 10.0
#: Time for which a commit is repeated after retriable errors; then the marker must show the outcome.
_COMMIT_S_MAX: Final = 15.0
_PRODUCER: Final[dict[str, Any]] = {
    **PRODUCER,
    "retry.backoff.ms": 10,
    # Longer than a broker's restart, so that Kafka does not abort a transaction that is open meanwhile.
    "transaction.timeout.ms": 45_000,
    "message.timeout.ms": 40_000,  # must not exceed transaction.timeout.ms
}


def markers_topic(origin: UUID) -> str:
    """Return the name of the control topic of the outbox with the id *origin*."""
    return f"relaybox-markers-{origin.hex}"


class Markers:
    """Read and write markers, the ids of published batches, in the control topic of an outbox.

    The topic is compacted, and has one partition and one key for each lane. Committed consumer offsets could
    store the ids too, but Kafka expires offsets of a group without members, and a transaction that commits
    offsets takes ten times as long. All methods block; each opens the clients it needs.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        origin: UUID,
        *,
        replication: Replication = DEFAULT_REPLICATION,
        deadline: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        """Create the object without connecting.

        Args:
            connection: Settings of the clients.
            origin: Id of the outbox.
            replication: Replication of a new control topic.
            deadline: Returns the time of ``time.monotonic()`` until which to wait for brokers.
        """
        self._connection = connection
        self._replication = replication
        self._deadline = deadline
        self._origin = origin.hex
        self.topic = markers_topic(origin)
        self._partitions = 0

    def transactional_id(self, lane: int, number: int) -> str:
        """Return the ``transactional.id`` of producer *number* (modulo 4) of *lane*, equal for all owners."""
        place = number % PRODUCERS_PER_LANE
        return f"relaybox-{self._origin}-{lane}" + (f"-{place}" if place else "")

    def produce(self, producer: Producer, lane: int, batch_id: UUID, report: Report) -> None:
        """Add the marker of batch *batch_id* of *lane* to the transaction of *producer*.

        Raises:
            KafkaException: librdkafka refused the record.
        """
        producer.produce(
            self.topic, batch_id.bytes, f"lane-{lane}".encode(), partition=lane, on_delivery=report
        )

    def ensure_partitions(self, lanes: Sequence[int]) -> None:
        """Create or grow the control topic so that it has a partition for each of *lanes*.

        Raises:
            LinkDown: No broker responded, or the topic cannot be created; the message says what to do.
        """
        wanted = max(_PARTITIONS, max(lanes) + 1)
        if wanted <= self._partitions:
            return
        with map_link_errors(), AdminClient(dict(self._connection)) as admin:
            for response in self._create_or_grow(admin, wanted).values():
                self._check_created(response, wanted)
        self._partitions = wanted

    def _create_or_grow(self, admin: Any, wanted: int) -> dict[str, Any]:
        metadata = admin.list_topics(timeout=self._response_s())
        existing, brokers = metadata.topics.get(self.topic), Brokers.of(metadata)
        if existing is None:
            return admin.create_topics([self._described(wanted, brokers)])
        warn_about_single_replicas(metadata, [self.topic])
        if len(existing.partitions) < wanted:
            return admin.create_partitions([new_partitions(self.topic, existing, wanted, brokers)])
        return {}

    def _described(self, partitions: int, brokers: Brokers) -> NewTopic:
        try:
            plan = plan_replication(self._replication, brokers)
        except ReplicationImpossible as error:
            raise LinkDown(f"the control topic {self.topic} cannot be created: {error}") from error
        warn_about_few_brokers(self._connection["bootstrap.servers"], [self.topic], plan, self._replication)
        return new_topic(self.topic, partitions, plan, {"cleanup.policy": "compact"})

    def _check_created(self, response: Any, wanted: int) -> None:
        try:
            response.result(self._response_s())
        except (KafkaException, TimeoutError) as error:
            reason: Any = error.args[0] if error.args else "no response"
            if isinstance(reason, KafkaError) and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            raise LinkDown(
                f"the control topic {self.topic} cannot be created or extended to {wanted} partitions "
                f"({reason}); allow the relay to create and alter it, or create or extend it yourself "
                "(cleanup.policy=compact, replicated as the topics of events are)"
            ) from error

    def read_last(self, lanes: Sequence[int]) -> dict[int, UUID]:
        """Return the id of the last committed batch of each of *lanes* that has a marker.

        Call this only after the lanes' producers were initialised, and not for lanes that
        :meth:`lanes_with_open_transaction` returns: an open transaction hides later markers.

        Raises:
            LinkDown: The broker did not respond in time.
        """
        found: dict[int, UUID] = {}
        look_back, left, until_s = _LOOK_BACK, list(lanes), time.monotonic() + _READ_S_MAX
        with self._consumer("read_committed") as consumer:
            while left:
                firsts, ends = self._bounds(consumer, left)
                starts = {lane: max(firsts[lane], ends[lane] - look_back) for lane in left}
                read = self._read_to_end(consumer, starts, until_s)
                found.update((lane, ids[-1]) for lane, ids in read.items() if ids)
                left = [lane for lane in left if lane not in found and starts[lane] > firsts[lane]]
                look_back *= 16
        return found

    def lanes_with_open_transaction(self, lanes: Sequence[int]) -> set[int]:
        """Return those of *lanes* whose last marker an open transaction may hide from :meth:`read_last`.

        Opening a producer ends only transactions with its ``transactional.id``; others may still be open.

        Raises:
            LinkDown: The broker did not respond in time.
        """
        with self._consumer("read_committed") as committed, self._consumer("read_uncommitted") as all_records:
            stable, ends = [self._offsets(each, lanes, OFFSET_END) for each in (committed, all_records)]
            return {lane for lane in lanes if stable[lane] < ends[lane]}

    def written(self, lanes: Sequence[int]) -> dict[int, list[UUID]]:
        """Return, by lane, the batch ids of the markers in the last 64 offsets, committed or not, in order.

        Raises:
            LinkDown: The broker did not respond in time.
        """
        with self._consumer("read_uncommitted") as consumer:
            firsts, ends = self._bounds(consumer, lanes)
            starts = {lane: max(firsts[lane], ends[lane] - _LOOK_BACK) for lane in lanes}
            return self._read_to_end(consumer, starts, time.monotonic() + _READ_S_MAX)

    @contextmanager
    def _consumer(self, isolation: str) -> Generator[Consumer]:
        consumer = Consumer(
            {
                **self._connection,
                "group.id": f"relaybox-markers-{uuid4()}",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            with map_link_errors():
                yield consumer
        except LinkDown:
            self._partitions = 0  # the topic itself may have been deleted
            raise
        finally:
            consumer.close()

    def _bounds(self, consumer: Consumer, lanes: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
        """Return the first offset, which may be outdated, and the end offset of each lane's partition."""
        return self._offsets(consumer, lanes, OFFSET_BEGINNING), self._offsets(consumer, lanes, OFFSET_END)

    def _offsets(self, consumer: Consumer, lanes: Sequence[int], position: int) -> dict[int, int]:
        """Return the offset at *position* of each lane's partition, by one request to each broker."""
        until_s = time.monotonic() + self._response_s()

        def request() -> dict[int, int]:
            wanted = [TopicPartition(self.topic, lane, position) for lane in lanes]
            found = consumer.offsets_for_times(wanted, timeout=self._response_s())
            if missing := [each for each in found if each.error is not None or each.offset < 0]:
                raise KafkaException(missing[0].error or KafkaError(KafkaError._NOENT))  # noqa: SLF001
            return {each.partition: each.offset for each in found}

        return retry_on_stale_metadata(request, lambda: min(until_s, self._deadline())) if lanes else {}

    def _read_to_end(
        self, consumer: Consumer, starts: Mapping[int, int], until_s: float
    ) -> dict[int, list[UUID]]:
        """Read each partition from its start to its end; return the batch ids in its records."""
        consumer.assign([TopicPartition(self.topic, lane, offset) for lane, offset in starts.items()])
        found, reading = {lane: list[UUID]() for lane in starts}, set(starts)
        while reading:
            message = consumer.poll(self._response_s())
            if message is None or time.monotonic() > until_s:
                raise LinkDown(f"no records of the control topic {self.topic} arrived; check the brokers")
            error, partition = message.error(), message.partition()
            if error is None:
                assert partition is not None
                found[partition].append(UUID(bytes=message.value()))
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - local codes begin with _
                reading.discard(partition or 0)
            else:
                raise KafkaException(error)
        return found

    def _response_s(self) -> float:
        return max(_RESPONSE_S_MIN, min(_RESPONSE_S, self._deadline() - time.monotonic()))


class LaneProducer:
    """A transactional producer of one lane; :meth:`open` fences others with the same ``transactional.id``.

    If a commit returns an error, the transaction may be committed nevertheless, because the response may have
    been lost. All methods block; one thread at a time may use a producer.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        markers: Markers,
        lane: int,
        number: int,
        *,
        batch_bytes: int,
        deadline: Callable[[], float],
    ) -> None:
        self.batch_bytes = batch_bytes
        self._deadline = deadline
        self._markers, self._lane = markers, lane
        #: Number of this producer in the lane, which determines the ``transactional.id``.
        self.number = number
        self._id = markers.transactional_id(lane, number)
        self._producer = Producer(
            {**connection, **_PRODUCER, "transactional.id": self._id, "batch.size": batch_bytes}
        )

    def open(self, limit_s: float = INIT_S_MAX) -> None:
        """End the last transaction of this ``transactional.id``, and fence other producers with this id.

        Raises:
            TransactionUnfinished: The last transaction has not ended within *limit_s* seconds.
            LinkDown: The brokers did not respond in time, or refused; retry with a new producer.
        """
        until_s = time.monotonic() + limit_s
        while True:
            try:
                self._producer.init_transactions(_INIT_S)
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or time.monotonic() > min(until_s, self._deadline()):
                    if reason.code() == KafkaError.CONCURRENT_TRANSACTIONS:
                        raise TransactionUnfinished(
                            f"the last transaction of transactional.id {self._id} has not ended; "
                            "check that all its partitions accept writes"
                        ) from error
                    raise LinkDown(
                        f"transactional producer {self._id} cannot be initialised: {reason.str()}; check the "
                        "brokers and the right WRITE on this transactional.id"
                    ) from error
            else:
                return

    def publish(self, batch: LaneBatch) -> TransactionResult:
        """Publish *batch* and its marker in one transaction; commit if the claim is confirmed within 10 s."""
        failures: list[KafkaError] = []
        note = partial(_note_failure, failures)

        def note_marker(error: KafkaError | None, _message: object) -> None:
            if error is not None:
                failures.append(UNDELIVERED)  # the marker's own error would count as the fault of a row

        try:
            self._producer.begin_transaction()
            for message in batch.messages:
                produce(self._producer, message, note, self._deadline)
            self._markers.produce(self._producer, self._lane, batch.batch_id, note_marker)
            if not flush(self._producer, self._deadline):
                failures.append(UNDELIVERED)
        except KafkaException as error:
            failures.append(error.args[0])
        if failures:
            return TransactionResult(state=TransactionState.UNPUBLISHED, error=_worst(failures))
        return self._commit() if _is_claimed(batch) else self._abort()

    def close(self) -> None:
        """Discard unacknowledged records; the next :meth:`open` with this id ends an open transaction."""
        discard(self._producer)

    def _abort(self) -> TransactionResult:
        with suppress(KafkaException):  # the next takeover ends the transaction; consumers wait until then
            self._producer.abort_transaction(self._commit_s())
        return TransactionResult(state=TransactionState.UNCLAIMED)

    def _commit(self) -> TransactionResult:
        until_s = time.monotonic() + _COMMIT_S_MAX
        while True:
            try:
                self._producer.commit_transaction(self._commit_s())
            except KafkaException as error:
                reason: KafkaError = error.args[0]
                if not reason.retriable() or time.monotonic() > min(until_s, self._deadline()):
                    return TransactionResult(state=TransactionState.IN_DOUBT, error=reason)
            else:
                return TransactionResult(state=TransactionState.COMMITTED)

    def _commit_s(self) -> float:
        return max(_COMMIT_S_MIN, min(_COMMIT_S, self._deadline() - time.monotonic()))


def _is_claimed(batch: LaneBatch) -> bool:
    try:
        return batch.number.result(_CLAIM_S) is not None
    except TimeoutError:  # if PostgreSQL confirms later, Kafka has no marker of the claim: rows stay PENDING
        return False


def _note_failure(failures: list[KafkaError], error: KafkaError | None, _message: object) -> None:
    if error is not None:
        failures.append(error)


def _worst(failures: Sequence[KafkaError]) -> KafkaError:
    return next((error for error in failures if error.code() in RECORD_REJECTED), failures[0])
