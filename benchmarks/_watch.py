"""Delete, count and consume the records of topics."""

import queue
import threading
import time
from hashlib import blake2b
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - public by the documentation
)
from relaybox.settings import KafkaSettings, load_settings

__all__ = ("Watcher", "digest_of", "empty_topic", "is_end", "places_of", "records_in")

_RESPONSE_S: Final = 10.0
_END: Final = -1


def _servers() -> dict[str, Any]:
    return {**load_settings(KafkaSettings).client_config(), "log_level": 0}


def places_of(topic: str) -> list[TopicPartition]:
    """Return the partitions of *topic*."""
    with AdminClient(_servers()) as admin:
        partitions = admin.list_topics(topic, timeout=_RESPONSE_S).topics[topic].partitions
    return [TopicPartition(topic, number) for number in partitions]


def empty_topic(topic: str) -> None:
    """Delete all records of *topic*, so that repeated rounds do not fill the disk."""
    places = [TopicPartition(topic, place.partition, _END) for place in places_of(topic)]
    with AdminClient(_servers()) as admin:
        for response in admin.delete_records(places, request_timeout=_RESPONSE_S).values():
            response.result(_RESPONSE_S)


def records_in(topic: str) -> int:
    """Count the records of *topic*, control records of transactions included."""
    places = places_of(topic)
    ends: list[int] = []
    with AdminClient(_servers()) as admin:
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest()):
            found = admin.list_offsets(dict.fromkeys(places, spec), request_timeout=_RESPONSE_S)
            ends.append(sum(response.result(_RESPONSE_S).offset for response in found.values()))
    earliest, latest = ends
    return latest - earliest


def digest_of(topic: str) -> tuple[int, int]:
    """Return the number of committed records of *topic* and a hash of their keys, values and headers.

    The hash depends on neither order nor partition.

    Raises:
        KafkaException: The consumer reported an error, so that the digest would lack records.
    """
    consumer: Any = Consumer(
        {
            **_servers(),
            "group.id": "digest",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    places = places_of(topic)
    consumer.assign(places)
    records, digest, at_end = 0, 0, 0
    while at_end < len(places):
        for message in consumer.consume(10_000, timeout=1.0):
            if is_end(message.error()):
                at_end += 1
                continue
            told = repr((message.key(), message.value(), sorted(message.headers() or []))).encode()
            digest = (digest + int.from_bytes(blake2b(told, digest_size=8).digest())) % 2**64
            records += 1
    consumer.close()
    return records, digest


def is_end(error: KafkaError | None) -> bool:
    """Return whether *error* of a message says that a partition is read to its end; None for a record.

    Raises:
        KafkaException: *error* is another error, after which records may be missing.
    """
    if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - local codes begin with _
        raise KafkaException(error)
    return error is not None


class Watcher:
    """Consume committed messages of *topic* in a thread, and record when the event of each key arrived."""

    def __init__(self, topic: str = "domain-events") -> None:
        self._topic = topic
        #: Key and time of arrival (``time.perf_counter``) of each message.
        self.arrived: queue.Queue[tuple[str, float]] = queue.Queue()
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Start the thread, and wait until its consumer is at the end of every partition."""
        self._thread.start()
        self._ready.wait(30)

    def stop(self) -> None:
        """Stop the consumer."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        consumer: Any = Consumer(
            {
                **_servers(),
                "group.id": "bench",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 100,
                "isolation.level": "read_committed",
            }
        )
        places = places_of(self._topic)
        for place in places:
            place.offset = _end_of(consumer, place)
        consumer.assign(places)
        consumer.poll(0.5)
        self._ready.set()
        while not self._stop.is_set():
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                now = time.perf_counter()
                key = message.key()
                self.arrived.put((key.decode() if isinstance(key, bytes) else str(key), now))
        consumer.close()


def _end_of(consumer: Any, place: TopicPartition) -> int:
    """Return the end offset of a partition; retry while a new partition has no leader."""
    until_s = time.monotonic() + _RESPONSE_S
    while True:
        try:
            return consumer.get_watermark_offsets(place, timeout=_RESPONSE_S)[1]
        except KafkaException:
            if time.monotonic() > until_s:
                raise
