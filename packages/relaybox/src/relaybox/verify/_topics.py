"""What Kafka says of the topics, and reading them to a given end. Every call blocks."""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from time import monotonic
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from relaybox.kafka import ConnectionDiagnosis, topic_configs
from relaybox.settings import KafkaSettings
from relaybox.verify._errors import TopicHeldBack, TopicMissing, TopicUnreadable
from relaybox.verify._records import Partition, TopicRecord, record_of
from relaybox.verify._report import Isolation

__all__ = ("Reader", "Retention", "TopicMetadata")

_RESPONSE_TIMEOUT_S: Final = 10.0
_BATCH_RECORDS_MAX: Final = 5_000
#: Messages in hand at once. With ten times as many the collector of garbage looks at so many headers that
#: reading takes nearly twice as long.
_MESSAGES_PER_CALL_MAX: Final = 500
#: What is read ahead, and what one answer of the broker may bring: most of this process's memory.
_PREFETCH_KIB: Final = 8_192
_FETCH_BYTES_MAX: Final = 8_388_608
_POLL_S: Final = 0.25
#: Without a record or the news that there is none for this long, Kafka counts as away.
_SILENCE_MAX_S: Final = 30.0
#: A relay's transaction ends after 45 s at the latest, and the broker looks for such every 10 s.
_HELD_BACK_MAX_S: Final = 75.0
_FORBIDDEN: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,  # noqa: SLF001 - librdkafka's local codes are spelled so
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)
_GONE: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}  # noqa: SLF001
)


class Retention(NamedTuple):
    """What may remove records of a topic."""

    #: Seconds for which they are kept; infinite without a limit.
    kept_s: float
    #: Whether the size of a partition is limited too.
    by_size: bool
    #: Whether a record is removed once a later one has its key.
    compacted: bool


class TopicMetadata:
    """Which partitions there are, and where they begin and end."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._bootstrap_servers = settings.bootstrap_servers
        self._diagnosis = ConnectionDiagnosis(self._bootstrap_servers)
        conf: Any = {**_connection(settings), "error_cb": self._diagnosis.record}
        self._admin: Any = AdminClient(conf)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connections: a client that is collected as garbage by its own thread ends the process."""
        self._admin.__exit__(None, None, None)

    def partitions(self, topics: Iterable[str]) -> dict[str, int]:
        """How many partitions each of *topics* has; those that do not exist are left out.

        Raises:
            TopicUnreadable: Kafka is away or refuses us.
        """
        try:
            # All topics: asking for one by name may create it.
            known = self._admin.list_topics(timeout=_RESPONSE_TIMEOUT_S).topics
        except KafkaException as error:
            self._admin.poll(0)  # why a connection failed is told here, and only here
            raise _unreadable(self._diagnosis, error.args[0]) from error
        return {name: len(known[name].partitions) for name in topics if name in known}

    def existing(self, topics: Iterable[str]) -> dict[str, int]:
        """As :meth:`partitions`, but all of them must be there.

        Raises:
            TopicMissing: one is not.
            TopicUnreadable: Kafka is away or refuses us.
        """
        wanted = sorted(set(topics))
        found = self.partitions(wanted)
        missing = [name for name in wanted if name not in found]
        if missing:
            raise TopicMissing(
                f"Kafka at {self._bootstrap_servers} shows no topic {', '.join(missing)}; "
                "check its name, its rights, or run relaybox topics create"
            )
        return found

    def beginnings(self, topics: Mapping[str, int], since: datetime | None = None) -> dict[Partition, int]:
        """The first offset that each partition still holds, or its first since a time; the end without any.

        Raises:
            TopicUnreadable: Kafka is away or refuses us.
        """
        if since is None:
            return self._offsets(topics, OffsetSpec.earliest())
        found = self._offsets(topics, OffsetSpec.for_timestamp(int(since.timestamp() * 1_000)))
        ends = self.ends(topics) if any(offset < 0 for offset in found.values()) else {}
        return {place: ends[place] if offset < 0 else offset for place, offset in found.items()}

    def retention(self, topics: Iterable[str]) -> dict[str, Retention]:
        """Return what may remove records of each topic.

        Raises:
            TopicUnreadable: Kafka is away or refuses us.
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
        """The offset after the last record of each partition, committed or not.

        Raises:
            TopicUnreadable: Kafka is away or refuses us.
        """
        return self._offsets(topics, OffsetSpec.latest())

    def _offsets(self, topics: Mapping[str, int], spec: Any) -> dict[Partition, int]:
        asked = {
            TopicPartition(topic, number): spec for topic, count in topics.items() for number in range(count)
        }
        if not asked:
            return {}
        try:
            answers = self._admin.list_offsets(asked, request_timeout=_RESPONSE_TIMEOUT_S)
            return {
                (one.topic, one.partition): each.result(_RESPONSE_TIMEOUT_S + 1).offset
                for one, each in answers.items()
            }
        except KafkaException as error:
            raise _unreadable(self._diagnosis, error.args[0]) from error
        except TimeoutError as error:
            raise _unreadable(self._diagnosis) from error


class Reader:
    """Reads partitions from given offsets to given ends, as a reader of that isolation sees them.

    Under ``read_committed`` a partition is readable up to the first transaction that is still open;
    what lies behind is waited for. Belongs to one thread.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        starts: Mapping[Partition, int],
        ends: Mapping[Partition, int],
        isolation: Isolation,
        sources: Collection[str] = (),
    ) -> None:
        """Read each partition from *starts* to *ends*; *sources* are those of this database's events."""
        self._sources = sources
        self._unread = {place: end for place, end in ends.items() if starts[place] < end}
        #: When the first record of each partition was written, in milliseconds since 1970.
        self.first_at_ms: dict[Partition, int] = {}
        #: Partitions that were read to the end of what is committed, but no further.
        self._held_back_partitions = set[Partition]()
        self._diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
        self._progress_at_s = monotonic()
        self._kafka: Any = Consumer(
            {
                **_connection(settings),
                # Only named: the partitions are assigned by hand and no offset is ever committed.
                "group.id": "relaybox-verify",
                "isolation.level": isolation,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                # Records removed before they were read must not look like lost ones.
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
        """Whether everything up to the ends was read."""
        return not self._unread

    def read(self) -> list[TopicRecord]:
        """The next records, in the order of each partition; none when there was nothing for a moment.

        Raises:
            TopicHeldBack: an open transaction hides the rest for too long.
            TopicUnreadable: Kafka is away, refuses, or removed records that were to be read.
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
        """Give the connections back."""
        self._kafka.close()

    def _add_record(self, message: Any, found: list[TopicRecord]) -> None:
        record = record_of(message, self._sources)
        place = record[:2]
        end = self._unread.get(place)
        if end is None or record.offset >= end:
            self._finish_partition(place)
            return
        self._progress_at_s = monotonic()
        if place not in self.first_at_ms:
            self.first_at_ms[place] = message.timestamp()[1]
        found.append(record)
        if record.offset + 1 >= end:
            self._finish_partition(place)

    def _handle_error(self, message: Any, error: KafkaError) -> None:
        place = (message.topic(), message.partition())
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # noqa: SLF001
            # Its offset counts what readers never see: ends of transactions, and aborted records.
            if message.offset() >= self._unread.get(place, 0):
                self._finish_partition(place)
            else:
                self._held_back_partitions.add(place)
        elif error.fatal() or code in _FORBIDDEN | _GONE:
            raise _unreadable(self._diagnosis, error)
        elif code == KafkaError._AUTO_OFFSET_RESET:  # noqa: SLF001
            raise TopicUnreadable(
                f"{place[0]}, partition {place[1]}: records were removed before they were read; run it again"
            )
        else:
            self._diagnosis.record(error)

    def _finish_partition(self, place: Partition) -> None:
        if self._unread.pop(place, None) is not None:
            self._progress_at_s = monotonic()
            self._held_back_partitions.discard(place)
            self._kafka.pause([TopicPartition(*place)])

    def _check_timeouts(self) -> None:
        silent_s = monotonic() - self._progress_at_s
        if self._unread.keys() <= self._held_back_partitions:
            if self._unread and silent_s > _HELD_BACK_MAX_S:
                topic, number = min(self._unread)
                raise TopicHeldBack(
                    f"{topic}, partition {number}: a transaction is open for over {_HELD_BACK_MAX_S:.0f} s "
                    "and hides the records behind it; try again later, or abort it with kafka-transactions.sh"
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
        # librdkafka would write to stderr; what matters reaches people through our errors.
        "log_level": 0,
        "socket.timeout.ms": 10_000,
        "allow.auto.create.topics": False,
    }


def _unreadable(diagnosis: ConnectionDiagnosis, error: KafkaError | None = None) -> TopicUnreadable:
    if error is not None and error.code() in _FORBIDDEN:
        return TopicUnreadable(
            f"Kafka refuses: {error.str()}; this user needs DESCRIBE and READ on the topics"
        )
    if error is not None and error.code() in _GONE:
        return TopicUnreadable(f"Kafka has no such topic or partition any more: {error.str()}; run it again")
    return TopicUnreadable(diagnosis.message(error))
