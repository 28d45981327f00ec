"""Read the topic from offset 0, or follow it."""

import threading
import time
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from confluent_kafka import Consumer, KafkaError, TopicPartition
from pydantic_core import from_json

from tests.faults.chaos._comparison import Record
from tests.faults.chaos._servers import PARTITIONS, TOPIC

_RESPONSE_S: Final = 10.0
_POLL_S: Final = 0.2
#: A read from the beginning fails after so long without a record.
_STALL_S: Final = 60.0
_SETTLE_PAUSE_S: Final = 0.5


class Isolation(StrEnum):
    """Kafka's isolation levels."""

    COMMITTED = "read_committed"
    UNCOMMITTED = "read_uncommitted"


class TopicUnreadable(Exception):
    """Raised when the topic cannot be read to its end; the run fails."""


def read_topic(bootstrap_servers: str, isolation: Isolation) -> Iterator[Record]:
    """Yield every record visible at *isolation* from offset 0 to the end, per partition by offset.

    Raises:
        TopicUnreadable: The broker stops to return records.
    """
    consumer = open_consumer(bootstrap_servers, isolation, {"enable.partition.eof": True})
    try:
        consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
        unfinished, heard_s = set(range(PARTITIONS)), time.monotonic()
        while unfinished:
            message: Any = consumer.poll(_POLL_S)
            if message is not None and message.error() is None:
                heard_s = time.monotonic()
                yield _record(message)
            elif message is not None and message.error().code() == KafkaError._PARTITION_EOF:
                unfinished.discard(message.partition())
            elif time.monotonic() - heard_s > _STALL_S:
                raise TopicUnreadable(f"no record from partitions {sorted(unfinished)} for {_STALL_S:g} s")
    finally:
        consumer.close()


def wait_until_settled(bootstrap_servers: str, within_s: float) -> dict[int, tuple[int, int]]:
    """Wait until no transaction is open; return last stable and end offset of unsettled partitions."""
    until_s = time.monotonic() + within_s
    while (still := _unsettled(bootstrap_servers)) and time.monotonic() < until_s:
        threading.Event().wait(_SETTLE_PAUSE_S)
    return still


def _unsettled(bootstrap_servers: str) -> dict[int, tuple[int, int]]:
    ends: dict[Isolation, dict[int, int]] = {}
    for isolation in Isolation:
        consumer = open_consumer(bootstrap_servers, isolation, {})
        try:
            ends[isolation] = {
                number: consumer.get_watermark_offsets(TopicPartition(TOPIC, number), timeout=_RESPONSE_S)[1]
                for number in range(PARTITIONS)
            }
        finally:
            consumer.close()
    stable, end = ends[Isolation.COMMITTED], ends[Isolation.UNCOMMITTED]
    return {number: (stable[number], end[number]) for number in end if stable[number] < end[number]}


class TopicFollower:
    """A read_committed consumer in a thread that records the arrival times of probe events."""

    def __init__(self, bootstrap_servers: str, key_prefix: str) -> None:
        """Describe a consumer of keys that begin with *key_prefix*."""
        self._bootstrap_servers = bootstrap_servers
        self._key_prefix = key_prefix.encode()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="chaos-follower", daemon=True)
        self._seen_s: dict[UUID, float] = {}
        #: librdkafka's statistics, at most 10 s old: they show why a partition is not read.
        self.statistics = ""

    @property
    def seen_s(self) -> Mapping[UUID, float]:
        """Return ``time.monotonic()`` of each probe event's first arrival by id; a live view."""
        return self._seen_s

    def start(self) -> None:
        """Start to consume at offset 0."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for its end."""
        self._stop.set()
        self._thread.join()

    def _follow(self) -> None:
        quick = {
            "reconnect.backoff.ms": 50,
            "reconnect.backoff.max.ms": 250,
            "fetch.wait.max.ms": 100,
            # A frozen broker sends no response: refresh metadata to find the new leaders of its partitions.
            "topic.metadata.refresh.interval.ms": 500,
            "statistics.interval.ms": 10_000,
            "stats_cb": self._keep_statistics,
        }
        consumer = open_consumer(self._bootstrap_servers, Isolation.COMMITTED, quick)
        try:
            consumer.assign([TopicPartition(TOPIC, number, 0) for number in range(PARTITIONS)])
            while not self._stop.is_set():
                for message in consumer.consume(1_000, _POLL_S):
                    self._note(message)
        finally:
            consumer.close()

    def _keep_statistics(self, statistics: str) -> None:
        self.statistics = statistics

    def _note(self, message: Any) -> None:
        if message.error() is None and message.key().startswith(self._key_prefix):
            self._seen_s.setdefault(UUID(_id_of(message)), time.monotonic())


def open_consumer(bootstrap_servers: str, isolation: Isolation, more: dict[str, Any]) -> Any:
    """Open a consumer of the harness, which never joins a group."""
    return Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "chaos",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "isolation.level": isolation.value,
            "log_level": 0,
            **more,
        }
    )


def _id_of(message: Any) -> str:
    return next(text for name, text in message.headers() if name == "ce_id").decode()


def _record(message: Any) -> Record:
    value = from_json(message.value())
    return Record(
        key=message.key().decode(),
        version=value["version"],
        event_id=UUID(value["event_id"]),
        ce_id=UUID(_id_of(message)),
        partition=message.partition(),
        offset=message.offset(),
        made_ms=message.timestamp()[1],
    )
