"""Find the partitions that accept no writes, while a process publishes to their topics (G36)."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from relaybox.kafka import (
    TOPIC_CHARS_MAX,
    UNKNOWN_TOPIC,
    UNREACHABLE,
    CallThreads,
    partition_of,
    topic_configs,
)
from relaybox.periodic import wait_at_most

__all__ = (
    "PartitionWatch",
    "UnavailablePartitions",
)

#: Longest wait for :meth:`PartitionWatch.check_now` before the next request: while all partitions accept
#: writes, and while a partition accepts no writes.
_PAUSE_S: Final = 5.0
_PAUSE_UNAVAILABLE_S: Final = 1.0
#: Shortest pause between two requests, because each failed batch asks for a request at once.
_PAUSE_S_MIN: Final = 0.5
_RESPONSE_S: Final = 2.0
_MIN_ISR: Final = "min.insync.replicas"
#: Function that gets a sentence for each partition that has stopped accepting writes, and the number of
#: partitions that accept writes again.
OnChange = Callable[[Sequence[str], int], None]


class UnavailablePartitions:
    """State of the partitions of a topic, of which at least one accepts no writes."""

    def __init__(self, partitions: int, reasons: Mapping[int, str]) -> None:
        """Create the state of a topic.

        Args:
            partitions: Number of partitions of the topic.
            reasons: A sentence for each partition that accepts no writes, by number of the partition.
        """
        self.reasons = reasons
        self._partitions = partitions
        self._available = cycle(number for number in range(partitions) if number not in reasons)

    def reason(self, key: str | bytes) -> str | None:
        """Return why the partition of *key* accepts no writes; None if the partition accepts writes."""
        return self.reasons.get(partition_of(key, self._partitions))

    def next_available(self) -> int | None:
        """Return the next partition that accepts writes, in rotation; None if there is none."""
        return next(self._available, None)


class PartitionWatch:
    """Find the partitions that accept no writes, among the topics in use, by requests to the brokers.

    The watch sends a request about every 5 s, or about every second while a partition accepts no writes, and
    at most 0.5 s after :meth:`check_now`. While no broker responds, the watch keeps its last result.
    """

    def __init__(self, connection: Mapping[str, Any], *, on_change: OnChange) -> None:
        """Create the watch without connecting.

        Args:
            connection: Settings of the admin client, under librdkafka's names.
            on_change: Called when a result differs from the one before, with two arguments: a sentence for
                each partition that has stopped accepting writes, and the number of partitions that accept
                writes again.
        """
        self._connection = connection
        self._on_change = on_change
        #: State by name of the topic; contains only topics with a partition that accepts no writes.
        self.unavailable: Mapping[str, UnavailablePartitions] = {}
        #: Topics in use. Topics that the brokers do not describe are removed, as rows may contain any name.
        self._topics: set[str] = set()
        #: Topics that the last response did not describe: they are missing, or this account has no right to.
        self._undescribed: frozenset[str] = frozenset()
        self._wanted = asyncio.Event()
        self._admin: Any = None
        #: Closes the admin client.
        self._clients = ExitStack()
        self._thread = CallThreads(1, "partition-watch")

    def add(self, topics: Iterable[str]) -> None:
        """Watch *topics* too, but no name over 249 characters; request the state at once for a new name.

        A topic that the last response did not describe is not new: the next request contains it again.
        """
        new = {topic for topic in topics if len(topic) <= TOPIC_CHARS_MAX} - self._topics
        self._topics |= new
        if new - self._undescribed:
            self.check_now()

    def check_now(self) -> None:
        """Request the state at once, for example after records were not acknowledged."""
        self._wanted.set()

    def deadline_of_batch(self, deadline: Callable[[], float]) -> Callable[[], float]:
        """Return a function that returns the deadline of a batch that starts now.

        Deadlines are times of ``time.monotonic()``. The returned function calls *deadline*, and returns its
        result. After a partition has stopped accepting writes since the start of the batch, the function
        returns 0.0 instead, a time in the past, so that the batch ends: it may contain a record for that
        partition, and the records for other partitions must not wait for that record (G36).
        """
        before = _places(self.unavailable)
        return lambda: 0.0 if _places(self.unavailable) - before else deadline()

    def hung(self) -> bool:
        """Return whether a call to Kafka has been running for over 60 s."""
        return self._thread.hung()

    def reasons(self) -> list[str]:
        """Return a sentence for each partition that accepts no writes."""
        return [reason for _, topic in sorted(self.unavailable.items()) for reason in topic.reasons.values()]

    async def run(self) -> None:
        """Request the state of the partitions at the intervals of this class until cancelled."""
        in_thread = asyncio.get_running_loop().run_in_executor
        try:
            while True:
                pause_s = _PAUSE_UNAVAILABLE_S if self.unavailable else _PAUSE_S
                await wait_at_most(self._wanted, pause_s)
                self._wanted.clear()
                found = await in_thread(self._thread, self._look, sorted(self._topics))
                if found is not None:
                    self._note(found)
                await asyncio.sleep(_PAUSE_S_MIN)
        finally:
            self._thread.submit(self._close)
            self._thread.shutdown(wait=False)

    def _note(self, found: Mapping[str, UnavailablePartitions]) -> None:
        before, self.unavailable = _places(self.unavailable), found
        now = _places(found)
        if before != now:
            lost = [found[topic].reasons[number] for topic, number in sorted(now - before)]
            self._on_change(lost, len(before - now))

    def _look(self, topics: Sequence[str]) -> Mapping[str, UnavailablePartitions] | None:
        """Return the unavailable partitions of *topics*; None if the brokers do not respond."""
        if not topics:
            return {}
        try:
            if self._admin is None:
                self._admin = self._clients.enter_context(AdminClient(dict(self._connection)))
            min_isr = self._min_isr(topics)
            requested = self._admin.describe_topics(
                TopicCollection(list(topics)), request_timeout=_RESPONSE_S
            )
            found: dict[str, UnavailablePartitions] = {}
            described = {name: _partitions(each) for name, each in requested.items()}
            self._undescribed = frozenset(name for name in described if not described[name])
            self._topics -= self._undescribed
            for name, partitions in described.items():
                if reasons := _reasons(name, partitions, min_isr.get(name, 1)):
                    found[name] = UnavailablePartitions(len(partitions), reasons)
        except (KafkaException, TimeoutError):
            # No log: the calls that publish to the partitions report brokers that do not respond. The next
            # request uses a new client, which tries all addresses, because the old client may wait for a
            # controller that is down.
            self._close()
            return None
        return found

    def _min_isr(self, topics: Sequence[str]) -> dict[str, int]:
        """Return ``min.insync.replicas`` by name, for *topics* whose configuration this account may read."""
        found: dict[str, int] = {}
        for topic, config in topic_configs(self._admin, topics, _RESPONSE_S).items():
            if not isinstance(config, KafkaError):
                found[topic] = int(config[_MIN_ISR] or 1)
            elif _may_pass(config):
                raise KafkaException(config)
        return found

    def _close(self) -> None:
        self._admin = None
        self._clients.close()


def _places(unavailable: Mapping[str, UnavailablePartitions]) -> set[tuple[str, int]]:
    return {(topic, number) for topic, each in unavailable.items() for number in each.reasons}


def _partitions(described: Any) -> Sequence[Any]:
    """Return the partitions of a topic; empty if it does not exist or this account may not describe it."""
    try:
        return described.result(_RESPONSE_S + 1).partitions
    except KafkaException as error:
        if _may_pass(error.args[0]):
            raise
        return ()


def _may_pass(error: KafkaError) -> bool:
    """Return whether a later request may succeed; not if the topic or the right to describe it is missing."""
    return error.code() not in UNKNOWN_TOPIC and (error.retriable() or error.code() in UNREACHABLE)


def _reasons(topic: str, partitions: Sequence[Any], min_isr: int) -> dict[int, str]:
    """Return a sentence, by number, for each partition without a leader or with too few replicas in sync."""
    reasons: dict[int, str] = {}
    for each in partitions:
        brokers = ", ".join(str(replica.id) for replica in each.replicas)
        if each.leader is None or each.leader.id < 0:
            reasons[each.id] = (
                f"partition {each.id} of topic {topic} has no leader; start one of the brokers {brokers}"
            )
        # Kafka requires at most as many replicas in sync as the partition has (Partition.effectiveMinIsr).
        elif len(each.isr) < (required := min(min_isr, len(each.replicas))):
            reasons[each.id] = (
                f"partition {each.id} of topic {topic} has {len(each.isr)} of {required} required replicas "
                f"in sync (min.insync.replicas); start the missing ones of the brokers {brokers}"
            )
    return reasons
