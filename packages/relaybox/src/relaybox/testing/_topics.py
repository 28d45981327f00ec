"""Read what was published since a test began; the topics also contain the messages of earlier tests."""

import asyncio
import heapq
import time
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from relaybox.kafka import retry_on_stale_metadata
from relaybox.settings import KafkaSettings
from relaybox.testing._waiting import WAIT_S

__all__ = ("Partition", "TopicClient", "Topics")

#: A topic's name and a partition's number.
Partition = tuple[str, int]
#: Name prefixes of topics that contain no events: Kafka's internal topics, and the marker topics of relays.
_INTERNAL: Final = ("__", "relaybox-markers-")


class TopicClient:
    """Read end offsets and messages of topics; the pytest session has one client, whose calls block."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._config: dict[str, Any] = {**settings.client_config(), "log_level": 0}
        self._admin: Any = AdminClient(self._config)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Close the client in the thread that created it: if the garbage collector of another thread destroys
        # the client, the process aborts.
        self._admin.__exit__(kind, error, trace)

    def ends(self) -> dict[Partition, int]:
        """Return the offset after the last committed message of each partition, without internal topics.

        Raises:
            AssertionError: Kafka does not return the offsets within 120 s.
        """
        until_s = time.monotonic() + WAIT_S
        try:
            return retry_on_stale_metadata(self._ends, lambda: until_s)
        except KafkaException as error:
            raise AssertionError(
                f"Kafka does not return the offsets of topics: {error}; check that the test's Kafka runs"
            ) from error

    def _ends(self) -> dict[Partition, int]:
        topics = self._admin.list_topics(timeout=WAIT_S).topics
        asked = {
            TopicPartition(name, number): OffsetSpec.latest()
            for name, topic in topics.items()
            if not name.startswith(_INTERNAL)
            for number in topic.partitions
        }
        if not asked:
            return {}
        answers = self._admin.list_offsets(
            asked, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=WAIT_S
        )
        return {(at.topic, at.partition): answer.result(WAIT_S).offset for at, answer in answers.items()}

    def read(self, start: Mapping[Partition, int], end: Mapping[Partition, int]) -> list[Any]:
        """Return the committed messages of all partitions in *end*, oldest first and in order per partition.

        Args:
            start: Offset of the first message to read, per partition; 0 for a partition that is missing.
            end: Offset after the last message to read, per partition.

        Raises:
            AssertionError: A partition cannot be read, or no message arrives for 120 s.
        """
        found: dict[Partition, list[Any]]
        found = {at: [] for at, offset in end.items() if offset > start.get(at, 0)}
        if not found:
            return []
        consumer: Any = Consumer(
            {
                **self._config,
                "group.id": "relaybox-testing",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                # A consumer never receives the control records of transactions, which may be the last records
                # of a partition: only this event then shows that the consumer has reached the end.
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 10,
            }
        )
        try:
            consumer.assign([TopicPartition(*at, start.get(at, 0)) for at in found])
            _read_to_the_end(consumer, found, end)
        finally:
            consumer.close()
        return list(heapq.merge(*found.values(), key=lambda message: message.timestamp()[1]))


def _read_to_the_end(
    consumer: Any, found: Mapping[Partition, list[Any]], end: Mapping[Partition, int]
) -> None:
    left = set(found)
    while left:
        messages: list[Any] = consumer.consume(1, timeout=WAIT_S)
        if not messages:
            raise AssertionError(f"partitions {sorted(left)} were not read to their ends within {WAIT_S:g} s")
        for message in messages:
            at = (message.topic(), message.partition())
            error = message.error()
            if error is None and message.offset() < end[at]:
                found[at].append(message)
            elif error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local code
                raise AssertionError(
                    f"partition {at[1]} of topic {at[0]!r} cannot be read: {error.str()}; see Kafka's log"
                )
            if error is not None or message.offset() >= end[at] - 1:
                left.discard(at)


class Topics:
    """Read the messages that were published since the test began; the fixture ``relaybox_topics``."""

    def __init__(self, client: TopicClient) -> None:
        """Read the end offsets of all topics."""
        self._client = client
        #: End offset of each partition when the test began. Partitions of topics that were created later are
        #: missing, and are read from offset 0.
        self.start: Mapping[Partition, int] = client.ends()

    async def read(
        self, topics: Iterable[str] | None = None, *, start: Mapping[Partition, int] | None = None
    ) -> tuple[list[Any], dict[Partition, int]]:
        """Read the messages of topics up to the present end of each partition.

        Args:
            topics: Names of topics; None for all.
            start: Offset per partition at which to begin, 0 for a partition that is missing; None for the end
                offsets at the beginning of the test.

        Returns:
            The messages, as a ``confluent_kafka.Consumer`` delivers them, oldest first and in order per
            partition; and per partition the offset up to which they were read.

        Raises:
            AssertionError: Kafka does not respond for 120 s, or a partition cannot be read.
        """
        return await asyncio.to_thread(self._read, topics, self.start if start is None else start)

    def _read(
        self, topics: Iterable[str] | None, start: Mapping[Partition, int]
    ) -> tuple[list[Any], dict[Partition, int]]:
        wanted = None if topics is None else set(topics)
        ends = {at: end for at, end in self._client.ends().items() if wanted is None or at[0] in wanted}
        return self._client.read(start, ends), ends
