"""Read metadata and records of topics. Every call blocks its thread."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from relaybox.kafka import FORBIDDEN, UNKNOWN_TOPIC, ConnectionDiagnosis, topic_configs
from relaybox.settings import KafkaSettings
from relaybox.verify._errors import TopicHeldBack, TopicMissing, TopicUnreadable
from relaybox.verify._records import Partition, TopicRecord, record_of
from relaybox.verify._report import Isolation

__all__ = ("Reader", "Retention", "TopicMetadata")

_RESPONSE_TIMEOUT_S: Final = 10.0
_BATCH_RECORDS_MAX: Final = 5_000
#: With 5,000, Python's garbage collection of the messages' headers nearly doubles the time of reading.
_MESSAGES_PER_CALL_MAX: Final = 500
#: Limits of the data that librdkafka reads ahead, and of one fetch response. This data is most of the memory
#: that a verification needs.
_PREFETCH_KIB: Final = 8_192
_FETCH_BYTES_MAX: Final = 8_388_608
_POLL_S: Final = 0.25
#: Kafka is reported as unreachable if no record, and no end of a partition, arrives for this time.
_SILENCE_MAX_S: Final = 30.0
#: Longest wait for an open transaction. The broker aborts a transaction of a relay after 45 s, and looks for
#: such transactions every 10 s.
_HELD_BACK_MAX_S: Final = 75.0


class Retention(NamedTuple):
    """Settings of a topic by which the broker removes records."""

    #: Seconds for which records are kept; infinite without a limit.
    kept_s: float
    #: Whether the size of a partition is limited.
    by_size: bool
    #: Whether a record is removed when there is a later record with the same key.
    compacted: bool


class TopicMetadata:
    """Read numbers of partitions, first and last offsets, and retention of topics."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._bootstrap_servers = settings.bootstrap_servers
        self._diagnosis = ConnectionDiagnosis(self._bootstrap_servers)
        conf: Any = {**_connection(settings), "error_cb": self._diagnosis.record}
        self._admin: Any = AdminClient(conf)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client: if Python destroyed it in a thread of librdkafka, the process would abort."""
        self._admin.__exit__(None, None, None)

    def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """Return the number of partitions of each of *topics*.

        Topics that do not exist, or that this account has no right to describe, are left out.

        Raises:
            TopicUnreadable: Kafka is unreachable or refuses access.
        """
        try:
            # Request all topics, because a request that names a topic may create the topic.
            known = self._admin.list_topics(timeout=_RESPONSE_TIMEOUT_S).topics
        except KafkaException as error:
            self._admin.poll(0)  # delivers the reason of a failed connection to error_cb
            raise _unreadable(self._diagnosis, error.args[0]) from error
        return {name: len(known[name].partitions) for name in topics if name in known}

    def existing(self, topics: Iterable[str]) -> dict[str, int]:
        """Return the number of partitions of each of *topics*, all of which must exist.

        Raises:
            TopicMissing: A topic does not exist, or this account has no right to describe it.
            TopicUnreadable: Kafka is unreachable or refuses access.
        """
        names = sorted(set(topics))
        found = self.partitions(names)
        missing = [name for name in names if name not in found]
        if missing:
            raise TopicMissing(
                f"Kafka at {self._bootstrap_servers} has no topic {', '.join(missing)}, or this account may "
                "not describe it; check the name, grant DESCRIBE on the topic, or run relaybox topics create"
            )
        return found

    def beginnings(self, topics: Mapping[str, int], since: datetime | None = None) -> dict[Partition, int]:
        """Return the offset of the first record of each partition; the end offset if there is no such record.

        Args:
            topics: Number of partitions of each topic.
            since: Skip records with an earlier timestamp; None: begin at the first retained record.

        Raises:
            TopicUnreadable: Kafka is unreachable or refuses access, or a topic was removed.
        """
        if since is None:
            return self._offsets(topics, OffsetSpec.earliest())
        found = self._offsets(topics, OffsetSpec.for_timestamp(int(since.timestamp() * 1_000)))
        ends = self.ends(topics) if any(offset < 0 for offset in found.values()) else {}
        return {partition: ends[partition] if offset < 0 else offset for partition, offset in found.items()}

    def retention(self, topics: Iterable[str]) -> dict[str, Retention]:
        """Return the retention of each topic.

        Raises:
            TopicUnreadable: Kafka is unreachable or refuses access, or a topic does not exist.
        """
        try:
            configs = topic_configs(self._admin, topics, _RESPONSE_TIMEOUT_S)
        except TimeoutError as error:
            raise _unreadable(self._diagnosis) from error
        found: dict[str, Retention] = {}
        for topic, config in configs.items():
            if isinstance(config, KafkaError):
                raise _unreadable(self._diagnosis, config)
            found[topic] = _retention(config)
        return found

    def ends(self, topics: Mapping[str, int]) -> dict[Partition, int]:
        """Return the offset after the last record of each partition, including uncommitted records.

        Args:
            topics: Number of partitions of each topic.

        Raises:
            TopicUnreadable: Kafka is unreachable or refuses access, or a topic was removed.
        """
        return self._offsets(topics, OffsetSpec.latest())

    def _offsets(self, topics: Mapping[str, int], spec: Any) -> dict[Partition, int]:
        offset_specs = {
            TopicPartition(topic, number): spec for topic, count in topics.items() for number in range(count)
        }
        if not offset_specs:
            return {}
        try:
            futures = self._admin.list_offsets(offset_specs, request_timeout=_RESPONSE_TIMEOUT_S)
            return {
                (partition.topic, partition.partition): future.result(_RESPONSE_TIMEOUT_S + 1).offset
                for partition, future in futures.items()
            }
        except KafkaException as error:
            raise _unreadable(self._diagnosis, error.args[0]) from error
        except TimeoutError as error:
            raise _unreadable(self._diagnosis) from error


class Reader:
    """Consumer that reads partitions between given offsets. Not thread-safe.

    With ``read_committed``, Kafka delivers the records of a partition only up to the first open transaction.
    The reader waits at most 75 s for such a transaction to end.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        starts: Mapping[Partition, int],
        ends: Mapping[Partition, int],
        isolation: Isolation,
        sources: Collection[str] = (),
    ) -> None:
        """Connect, and assign the partitions.

        Args:
            settings: The brokers.
            starts: First offset to read of each partition.
            ends: Offset after the last record to read of each partition.
            isolation: ``read_committed`` reads only records of committed transactions, and records written
                without a transaction; ``read_uncommitted`` reads all records.
            sources: Values of ``ce_source`` of this database's services. If empty, the records get no
                ``own_event_at``.
        """
        self._sources = sources
        self._unread = {partition: end for partition, end in ends.items() if starts[partition] < end}
        #: Timestamp of the first record that was read of each partition, in milliseconds since 1970.
        self.first_at_ms: dict[Partition, int] = {}
        #: Partitions that were read up to an open transaction and not yet to their end.
        self._held_back_partitions = set[Partition]()
        self._diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
        self._progress_at_s = monotonic()
        self._kafka: Any = Consumer(
            {
                **_connection(settings),
                # Required by the client; partitions are assigned manually and no offset is committed.
                "group.id": "relaybox-verify",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                # Fail if retention removed records before they were read: they must not count as lost.
                "auto.offset.reset": "error",
                "queued.max.messages.kbytes": _PREFETCH_KIB,
                "fetch.max.bytes": _FETCH_BYTES_MAX,
                "error_cb": self._diagnosis.record,
            }
        )
        self._kafka.assign(
            [TopicPartition(topic, number, starts[topic, number]) for topic, number in self._unread]
        )

    @property
    def done(self) -> bool:
        """Whether all partitions were read to their ends."""
        return not self._unread

    def read(self) -> list[TopicRecord]:
        """Return the next records; the records of each partition are in the order of their offsets.

        The list may be empty although :attr:`done` is False: call this again.

        Raises:
            TopicHeldBack: For over 75 s, an open transaction has hidden all remaining records.
            TopicUnreadable: No record arrived for over 30 s, Kafka refuses access, or Kafka removed records
                before they were read.
        """
        found: list[TopicRecord] = []
        while self._unread and len(found) < _BATCH_RECORDS_MAX:
            messages = self._kafka.consume(_MESSAGES_PER_CALL_MAX, 0 if found else _POLL_S)
            if not messages:
                break
            for message in messages:
                error = message.error()
                if error is None:
                    self._add_record(message, found)
                else:
                    self._handle_error(message, error)
        self._check_timeouts()
        return found

    def close(self) -> None:
        """Close the connections."""
        self._kafka.close()

    def _add_record(self, message: Any, found: list[TopicRecord]) -> None:
        record = record_of(message, self._sources)
        partition = record[:2]
        end = self._unread.get(partition)
        if end is None or record.offset >= end:
            self._finish_partition(partition)
            return
        self._progress_at_s = monotonic()
        if partition not in self.first_at_ms:
            self.first_at_ms[partition] = message.timestamp()[1]
        found.append(record)
        if record.offset + 1 >= end:
            self._finish_partition(partition)

    def _handle_error(self, message: Any, error: KafkaError) -> None:
        partition = (message.topic(), message.partition())
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001
            # message.offset() is the position of the consumer. The position also passes control records and
            # aborted records, which a consumer never receives.
            if message.offset() >= self._unread.get(partition, 0):
                self._finish_partition(partition)
            else:
                self._held_back_partitions.add(partition)
        elif error.fatal() or code in FORBIDDEN | UNKNOWN_TOPIC:
            raise _unreadable(self._diagnosis, error)
        elif code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            raise TopicUnreadable(
                f"{partition[0]}, partition {partition[1]}: records were removed before they were read; "
                "run the verification again"
            )
        else:
            self._diagnosis.record(error)

    def _finish_partition(self, partition: Partition) -> None:
        if self._unread.pop(partition, None) is not None:
            self._progress_at_s = monotonic()
            self._held_back_partitions.discard(partition)
            self._kafka.pause([TopicPartition(*partition)])

    def _check_timeouts(self) -> None:
        silent_s = monotonic() - self._progress_at_s
        if self._unread.keys() <= self._held_back_partitions:
            if self._unread and silent_s > _HELD_BACK_MAX_S:
                topic, number = min(self._unread)
                raise TopicHeldBack(
                    f"{topic}, partition {number}: a transaction is open for over {_HELD_BACK_MAX_S:.0f} s "
                    "and hides later records; try again later, or abort it with kafka-transactions.sh"
                )
        elif silent_s > _SILENCE_MAX_S:
            raise _unreadable(self._diagnosis)


def _retention(config: Mapping[str, str | None]) -> Retention:
    kept_ms = int(config["retention.ms"] or -1)
    return Retention(
        kept_s=float("inf") if kept_ms < 0 else kept_ms / 1_000,
        by_size=int(config["retention.bytes"] or -1) >= 0,
        compacted="compact" in (config["cleanup.policy"] or "").split(","),
    )


def _connection(settings: KafkaSettings) -> dict[str, Any]:
    return {
        **settings.client_config(),
        "client.id": "relaybox-verify",
        # Disables librdkafka's log on stderr; this module raises the errors that matter.
        "log_level": 0,
        "socket.timeout.ms": 10_000,
        "allow.auto.create.topics": False,
    }


def _unreadable(diagnosis: ConnectionDiagnosis, error: KafkaError | None = None) -> TopicUnreadable:
    if error is not None and error.code() in FORBIDDEN:
        return TopicUnreadable(
            f"Kafka refuses access: {error.str()}; grant this user DESCRIBE and READ on the topics"
        )
    if error is not None and error.code() in UNKNOWN_TOPIC:
        return TopicUnreadable(f"a topic or partition was removed: {error.str()}; run the verification again")
    return TopicUnreadable(diagnosis.message(error))
