"""Read consumer groups from Kafka: members, offsets, oldest messages. Every call blocks its thread."""

from collections.abc import Collection, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, NamedTuple, Self

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage] - documented there
)

from relaybox.kafka import (
    FORBIDDEN,
    STALE_METADATA,
    UNAUTHORIZED,
    UNKNOWN_TOPIC,
    UNREACHABLE,
    ConnectionDiagnosis,
    headers_of,
)
from relaybox.operations._errors import GroupUnreadable, KafkaUnavailable
from relaybox.settings import KafkaSettings

__all__ = (
    "FirstMessage",
    "FirstMessages",
    "GroupDescription",
    "GroupReader",
    "MemberDescription",
    "Partition",
)

#: A topic's name and a partition's number.
Partition = tuple[str, int]
#: Time limit of one request.
_RESPONSE_S: Final = 8.0
_POLL_S: Final = 0.25
#: Enough for one message of a partition; a broker sends a larger message nevertheless.
_FETCH_BYTES: Final = 65_536
_PREFETCH_KIB: Final = 8_192
_ABSENT: Final = frozenset({KafkaError.GROUP_ID_NOT_FOUND})


class MemberDescription(NamedTuple):
    """A member of a group, and the partitions that it owns."""

    member_id: str
    client_id: str
    host: str
    partitions: tuple[Partition, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDescription:
    """A group as its coordinator describes it."""

    state: ConsumerGroupState
    members: tuple[MemberDescription, ...]


class FirstMessage(NamedTuple):
    """The first message at or after an offset."""

    offset: int
    #: Timestamp of the message, in seconds since 1970; None if the message has none.
    created_at_s: float | None
    key: bytes | None = None
    #: Header ``ce_type`` of the message; None if it is missing.
    event_type: str | None = None


class GroupReader:
    """Describe consumer groups and read their offsets, by one admin client.

    Each method raises KafkaUnavailable if no broker responds, and GroupUnreadable if Kafka refuses to
    describe a topic. If Kafka refuses to describe a group, no error is raised, but the group gets an entry in
    ``refused``.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        #: Groups that cannot be read, and why.
        self.refused: dict[str, GroupUnreadable] = {}
        self._diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
        conf: Any = {**settings.client_config(), "log_level": 0, "error_cb": self._diagnosis.record}
        try:
            self._admin: Any = AdminClient(conf)
        except KafkaException as error:
            raise KafkaUnavailable(self._diagnosis.message(error.args[0])) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Close the client: if Python deleted it in a thread of librdkafka, the process would abort."""
        self._admin.__exit__(None, None, None)

    def describe(self, groups: Sequence[str]) -> dict[str, GroupDescription]:
        """Return the descriptions of *groups* by name.

        Groups that Kafka does not have, or refuses to describe, are left out.
        """
        futures = self._admin.describe_consumer_groups(list(groups), request_timeout=_RESPONSE_S)
        found: dict[str, GroupDescription] = {}
        for group, future in futures.items():
            with self._group_errors(group):
                described = _result(future)
                if described.state is not ConsumerGroupState.DEAD:
                    found[group] = GroupDescription(
                        state=described.state, members=tuple(map(_member, described.members))
                    )
        return found

    def committed(self, groups: Iterable[str]) -> dict[str, dict[Partition, int]]:
        """Return the committed offsets of *groups* by name; empty for a group that Kafka does not have."""
        requests = {
            group: self._admin.list_consumer_group_offsets(
                [ConsumerGroupTopicPartitions(group)], request_timeout=_RESPONSE_S
            )[group]
            for group in groups
        }
        found: dict[str, dict[Partition, int]] = {group: {} for group in requests}
        for group, future in requests.items():
            with self._group_errors(group):
                found[group] = {
                    (at.topic, at.partition): at.offset
                    for at in _result(future).topic_partitions
                    if at.error is None and at.offset >= 0
                }
        return found

    def partitions(self, topics: Collection[str]) -> dict[Partition, bool]:
        """Return all partitions of *topics*, and for each partition whether it has a leader.

        Topics that do not exist are left out.
        """
        with self._errors("topics", "the topics"):
            # Request all topics, because a request that names a topic may create the topic.
            known = self._admin.list_topics(timeout=_RESPONSE_S).topics
        return {
            (topic, number): partition.leader >= 0
            for topic in sorted(topics)
            if topic in known
            for number, partition in sorted(known[topic].partitions.items())
        }

    def beginnings(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the first offset of each of *partitions*, without those whose leader does not respond."""
        return self._offsets(partitions, OffsetSpec.earliest())

    def ends(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        """Return the offset up to which a read_committed consumer can read each partition.

        Partitions whose leader does not respond are left out.
        """
        return self._offsets(partitions, OffsetSpec.latest())

    def _offsets(self, partitions: Collection[Partition], spec: Any) -> dict[Partition, int]:
        if not partitions:
            return {}
        futures = self._admin.list_offsets(
            {TopicPartition(*partition): spec for partition in partitions},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=_RESPONSE_S,
        )
        found: dict[Partition, int] = {}
        for at, future in futures.items():
            with self._errors(f"topic {at.topic!r}", "the topic", ignored=STALE_METADATA | UNKNOWN_TOPIC):
                found[at.topic, at.partition] = _result(future).offset
        return found

    @contextmanager
    def _group_errors(self, group: str) -> Generator[None]:
        try:
            with self._errors(f"consumer group {group!r}", "the group", ignored=_ABSENT):
                yield
        except GroupUnreadable as error:
            self.refused[group] = error

    @contextmanager
    def _errors(self, what: str, resource: str, *, ignored: Collection[int] = frozenset()) -> Generator[None]:
        try:
            yield
        except TimeoutError as error:
            raise KafkaUnavailable(self._diagnosis.message()) from error
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() in ignored:
                return
            self._admin.poll(0)  # delivers the reason of a failed connection to error_cb
            if reason.code() in UNREACHABLE | (FORBIDDEN - UNAUTHORIZED):
                raise KafkaUnavailable(self._diagnosis.message(reason)) from error
            raise GroupUnreadable(
                f"{what} cannot be read: {reason.str()}",
                f"grant the right DESCRIBE on {resource} to the account of KAFKA_SASL_USERNAME or of the "
                "client certificate",
            ) from error


class FirstMessages:
    """Read the first message at or after given offsets, without joining a group or committing offsets."""

    def __init__(self, settings: KafkaSettings, until_s: float) -> None:
        """Configure the reader; the first call of :meth:`read` connects to Kafka.

        Args:
            settings: How to reach the brokers.
            until_s: Deadline for all calls together, as a value of ``time.monotonic()``.
        """
        self._settings = settings
        self._until_s = until_s
        self._kafka: Any = None

    def close(self) -> None:
        """Close the connections."""
        if self._kafka is not None:
            self._kafka.close()

    def read(
        self, starts: Mapping[Partition, int]
    ) -> tuple[dict[Partition, FirstMessage | None], str | None]:
        """Read the first message at or after the offset of each partition.

        Returns:
            The first message of each partition, None for a partition that has no such message; and the reason
            why partitions are missing in this result, None if no partition is missing.
        """
        if not starts:
            return {}, None
        if self._kafka is None:
            self._kafka = Consumer(_reader_configuration(self._settings))
        self._kafka.assign([TopicPartition(*at, offset) for at, offset in starts.items()])
        found: dict[Partition, FirstMessage | None] = {}
        refused: dict[Partition, str] = {}
        while len(found.keys() | refused.keys()) < len(starts) and monotonic() < self._until_s:
            message = self._kafka.poll(_POLL_S)
            if message is not None and message.topic() is not None:
                self._take(message, found, refused)
        self._kafka.unassign()
        missing = len(found) < len(starts)
        return found, next(iter(refused.values()), "no response in time") if missing else None

    def _take(
        self, message: Any, found: dict[Partition, FirstMessage | None], refused: dict[Partition, str]
    ) -> None:
        at: Partition = (message.topic(), message.partition())
        error = message.error()
        if error is None:
            found.setdefault(at, _first(message))
            self._kafka.pause([TopicPartition(*at)])
        elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's local code
            found.setdefault(at, None)
        elif error.code() in FORBIDDEN | UNKNOWN_TOPIC:
            refused[at] = error.str()


def _reader_configuration(settings: KafkaSettings) -> dict[str, Any]:
    return {
        **settings.client_config(),
        # Required by the client, which neither joins this group nor commits offsets.
        "group.id": "relaybox-operator",
        "isolation.level": "read_committed",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # The client then reports a partition that has only markers of transactions after the offset.
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "allow.auto.create.topics": False,
        "max.partition.fetch.bytes": _FETCH_BYTES,
        "queued.min.messages": 1,
        "queued.max.messages.kbytes": _PREFETCH_KIB,
        "fetch.wait.max.ms": 100,
        "log_level": 0,
    }


def _result(future: Future[Any]) -> Any:
    return future.result(_RESPONSE_S + 1)


def _member(member: Any) -> MemberDescription:
    assigned: Any = [] if member.assignment is None else member.assignment.topic_partitions
    return MemberDescription(
        member_id=member.member_id,
        client_id=member.client_id,
        host=member.host.removeprefix("/"),
        partitions=tuple(sorted((at.topic, at.partition) for at in assigned)),
    )


def _first(message: Any) -> FirstMessage:
    kind, created_at_ms = message.timestamp()
    event_type = dict(headers_of(message)).get("ce_type")
    return FirstMessage(
        offset=message.offset(),
        created_at_s=None if kind == TIMESTAMP_NOT_AVAILABLE else created_at_ms / 1000,
        key=message.key(),
        event_type=None if event_type is None else event_type.decode(errors="replace"),
    )
