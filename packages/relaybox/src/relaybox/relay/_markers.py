"""The control topic: which batch of each lane was published last, written in the batch's own transaction."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import UUID, uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from relaybox.kafka import retry_on_stale_metadata
from relaybox.relay._errors import LinkDown, ReplicationImpossible
from relaybox.relay._link import Report, map_link_errors
from relaybox.relay._replication import (
    DEFAULT_REPLICATION,
    Brokers,
    Replication,
    new_partitions,
    new_topic,
    plan_replication,
    warn_about_few_brokers,
    warn_about_single_replicas,
)

__all__ = ("PRODUCERS_PER_LANE", "Markers", "markers_topic")

#: Less than what is left to a relay that stops (G27): whoever waits cannot be told.
_ANSWER_S: Final = 4.0
_ANSWER_S_MIN: Final = 0.1
#: How many records from the end are read first; most hold a lane's last marker behind the remains of
#: transactions that were taken back.
_LOOK_BACK: Final = 64
#: How many transactional.ids a lane has; its producers use them in turn.
PRODUCERS_PER_LANE: Final = 4
#: Lanes that a topic is made for; growing beyond adds partitions.
_PARTITIONS: Final = 8


def markers_topic(origin: UUID) -> str:
    """Return the name of the topic that holds the markers of the outbox named *origin*."""
    return f"relaybox-markers-{origin.hex}"


class Markers:
    """One compacted topic for each outbox, one partition and one key for each lane.

    Not the offsets of a consumer group, which would be the usual place: those of a group
    without members expire, and a transaction that holds them took ten times as long.
    Blocking; every method opens what it needs.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        origin: UUID,
        *,
        replication: Replication = DEFAULT_REPLICATION,
        deadline: Callable[[], float] = lambda: float("inf"),
    ) -> None:
        """Wait for no broker past *deadline*, which may change; *replication* is for a new topic."""
        self._connection = connection
        self._replication = replication
        self._deadline = deadline
        self._origin = origin.hex
        self.topic = markers_topic(origin)
        self._partitions = 0

    def transactional_id(self, lane: int, number: int) -> str:
        """Return the id of the producer with *number* of *lane*; every owner of the lane uses the same."""
        place = number % PRODUCERS_PER_LANE
        return f"relaybox-{self._origin}-{lane}" + (f"-{place}" if place else "")

    def produce(self, producer: Producer, lane: int, batch_id: UUID, report: Report) -> None:
        """Add to *producer*'s transaction that batch *batch_id* of *lane* is part of it.

        Raises:
            KafkaException: librdkafka refused it.
        """
        producer.produce(
            self.topic, batch_id.bytes, f"lane-{lane}".encode(), partition=lane, on_delivery=report
        )

    def ensure_partitions(self, lanes: Sequence[int]) -> None:
        """Have a partition for each of *lanes*.

        Raises:
            LinkDown: no broker answered, or none lets us; the message says what to create.
        """
        wanted = max(_PARTITIONS, max(lanes) + 1)
        if wanted <= self._partitions:
            return
        with map_link_errors(), AdminClient(dict(self._connection)) as admin:
            for answer in self._asked_for(admin, wanted).values():
                self._created(answer, wanted)
        self._partitions = wanted

    def _asked_for(self, admin: Any, wanted: int) -> dict[str, Any]:
        metadata = admin.list_topics(timeout=self._answer_s())
        held, brokers = metadata.topics.get(self.topic), Brokers.of(metadata)
        if held is None:
            return admin.create_topics([self._described(wanted, brokers)])
        warn_about_single_replicas(metadata, [self.topic])
        if len(held.partitions) < wanted:
            return admin.create_partitions([new_partitions(self.topic, held, wanted, brokers)])
        return {}

    def _described(self, partitions: int, brokers: Brokers) -> NewTopic:
        try:
            plan = plan_replication(self._replication, brokers)
        except ReplicationImpossible as error:
            raise LinkDown(f"the control topic {self.topic} cannot be created: {error}") from error
        warn_about_few_brokers(self._connection["bootstrap.servers"], [self.topic], plan, self._replication)
        return new_topic(self.topic, partitions, plan, {"cleanup.policy": "compact"})

    def _created(self, answer: Any, wanted: int) -> None:
        try:
            answer.result(self._answer_s())
        except (KafkaException, TimeoutError) as error:
            reason: Any = error.args[0] if error.args else "no answer"
            if isinstance(reason, KafkaError) and reason.code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return
            raise LinkDown(
                f"the control topic {self.topic} with {wanted} partitions cannot be created ({reason}); "
                "allow the relay to create it, or create it with cleanup.policy=compact, "
                "replicated as the topics of events are"
            ) from error

    def read_last(self, lanes: Sequence[int]) -> dict[int, UUID]:
        """The last published batch of each of *lanes* that has one.

        Call it only after the lanes were opened, and not for lanes that
        :meth:`lanes_with_open_transaction` returns: a pending transaction would hide the end.

        Raises:
            LinkDown: the broker did not answer in time.
        """
        with self._consumer("read_committed") as consumer:
            return self._read(consumer, lanes)

    def lanes_with_open_transaction(self, lanes: Sequence[int]) -> set[int]:
        """Return those of *lanes* whose last marker may be hidden behind a transaction that has not ended.

        Opening a producer ends the transactions of its own id only. To be called after the lanes were opened.

        Raises:
            LinkDown: The broker did not respond in time.
        """
        with self._consumer("read_committed") as committed, self._consumer("read_uncommitted") as all_of_it:
            return {
                lane for lane in lanes if self._bounds(committed, lane)[1] < self._bounds(all_of_it, lane)[1]
            }

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
            self._partitions = 0  # the topic itself may be gone
            raise
        finally:
            consumer.close()

    def _read(self, consumer: Consumer, lanes: Sequence[int]) -> dict[int, UUID]:
        found: dict[int, UUID] = {}
        look_back, left = _LOOK_BACK, list(lanes)
        while left:
            ends: list[TopicPartition] = []
            for lane in left:
                first, end = self._bounds(consumer, lane)
                ends.append(TopicPartition(self.topic, lane, max(first, end - look_back)))
                if end - look_back <= first:
                    left = [other for other in left if other != lane]
            found.update(self._last_of(consumer, ends))
            left = [lane for lane in left if lane not in found]
            look_back *= 16
        return found

    def _bounds(self, consumer: Consumer, lane: int) -> tuple[int, int]:
        """The first offset of *lane*'s partition, which may be a moment old, and the one after its last."""
        place = TopicPartition(self.topic, lane)
        until_s = time.monotonic() + self._answer_s()
        return retry_on_stale_metadata(
            lambda: consumer.get_watermark_offsets(place, timeout=self._answer_s()),
            lambda: min(until_s, self._deadline()),
        )

    def _last_of(self, consumer: Consumer, starts: Sequence[TopicPartition]) -> dict[int, UUID]:
        """The last record of each partition from *starts* on."""
        consumer.assign(list(starts))
        found: dict[int, UUID] = {}
        reading = {start.partition for start in starts}
        while reading:
            message = consumer.poll(self._answer_s())
            if message is None:
                raise LinkDown("the broker did not answer with the control topic; check the brokers")
            error, partition = message.error(), message.partition()
            if error is None:
                assert partition is not None
                found[partition] = UUID(bytes=message.value())
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local codes are spelled so
                reading.discard(partition or 0)
            else:
                raise KafkaException(error)
        return found

    def _answer_s(self) -> float:
        return max(_ANSWER_S_MIN, min(_ANSWER_S, self._deadline() - time.monotonic()))
