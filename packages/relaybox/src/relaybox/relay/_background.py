"""Background tasks of a relay: find unavailable partitions, remove old rows, measure the backlog."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from itertools import cycle
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from relaybox.db import Database
from relaybox.errors import RelayboxError
from relaybox.kafka import TOPIC_CHARS_MAX, UNKNOWN_TOPIC, UNREACHABLE, topic_configs
from relaybox.outbox import RetentionStep, retain
from relaybox.periodic import wait_at_most
from relaybox.relay._errors import HistoryChanged, PartitionUnavailable
from relaybox.relay._kafka import CallThreads, client_settings
from relaybox.relay._messages import Message
from relaybox.relay._postgres import Connections, LowWatermark, measure_backlog, use_partial_indexes
from relaybox.relay._statistics import Counters
from relaybox.settings import KafkaSettings
from relaybox.telemetry import traceback_of
from relaybox.verify import partition_of

__all__ = (
    "Maintenance",
    "PartitionWatch",
    "UnavailablePartitions",
    "withhold",
)

#: Interval of requests for the state of partitions: while all accept writes, and while one does not.
_PAUSE_S: Final = 5.0
_PAUSE_UNAVAILABLE_S: Final = 1.0
#: Shortest pause between two requests, even if every batch fails.
_PAUSE_S_MIN: Final = 0.5
_ANSWER_S: Final = 2.0
_MIN_ISR: Final = "min.insync.replicas"
_log: Final = structlog.get_logger(__name__)
#: Longest interval of calls of retain().
_RETENTION_PAUSE_S: Final = 60.0
#: Minimum number of calls within the retention time; a short retention time needs a shorter interval.
_STEPS_PER_SLOT: Final = 50
_FAILED: Final = "relay maintenance failed, trying again"


class UnavailablePartitions:
    """State of the partitions of a topic, of which at least one accepts no writes."""

    def __init__(self, partitions: int, reasons: Mapping[int, str]) -> None:
        """Create the state of a topic.

        Args:
            partitions: Number of partitions.
            reasons: By number, a sentence for each partition that accepts no writes.
        """
        self.reasons = reasons
        self._partitions = partitions
        self._available = cycle(number for number in range(partitions) if number not in reasons)

    def reason(self, key: str) -> str | None:
        """Return why the partition of *key* accepts no writes; None if it does."""
        return self.reasons.get(partition_of(key, self._partitions))

    def next_available(self) -> int | None:
        """Return the next partition that accepts writes, in rotation; None if there is none."""
        return next(self._available, None)


def withhold(
    messages: Sequence[Message], unavailable: Mapping[str, UnavailablePartitions]
) -> tuple[list[Message], list[tuple[Message, PartitionUnavailable]]]:
    """Return the messages whose partition accepts writes, and for each other key its first message.

    The second list has the reason of each message. Later messages of these keys, on any topic, are in neither
    list: they stay PENDING behind the first message. A message without a key is assigned to a partition that
    accepts writes.

    Args:
        messages: Messages in the order of ``seq``.
        unavailable: State of topics with an unavailable partition, by name.
    """
    free: list[Message] = []
    held: list[tuple[Message, PartitionUnavailable]] = []
    waiting: set[str] = set()
    for message in messages:
        topic = unavailable.get(message.topic)
        if message.key in waiting:
            continue
        if topic is None:
            free.append(message)
        elif message.key is not None:
            if (reason := topic.reason(message.key)) is None:
                free.append(message)
            else:
                waiting.add(message.key)
                held.append((message, PartitionUnavailable(reason)))
        elif (partition := topic.next_available()) is not None:
            free.append(message._replace(partition=partition))
        else:
            held.append((message, PartitionUnavailable(next(iter(topic.reasons.values())))))
    return free, held


class PartitionWatch:
    """Find the partitions of the topics in use that accept no writes, by requests to the brokers.

    Requests are sent every 5 s, every second while there is such a partition, and at once after
    :meth:`check_now`. While no broker responds, the last result stays.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        #: State by topic, without topics whose partitions all accept writes.
        self.unavailable: Mapping[str, UnavailablePartitions] = {}
        self._on_available: Callable[[], None] = lambda: None
        #: Topics in use. Topics that the brokers do not know are removed, because rows may contain any name.
        self._topics: set[str] = set()
        self._wanted = asyncio.Event()
        self._admin: Any = None
        #: Closes the admin client.
        self._clients = ExitStack()
        self._thread = CallThreads(1, "relay-partitions")

    def on_available(self, callback: Callable[[], None]) -> None:
        """Register *callback*, which is called whenever a partition accepts writes again."""
        self._on_available = callback

    def add(self, topics: Iterable[str]) -> None:
        """Watch *topics* too, except names that Kafka does not allow; request all states if one is new."""
        before = len(self._topics)
        self._topics.update(topic for topic in topics if len(topic) <= TOPIC_CHARS_MAX)
        if len(self._topics) > before:
            self.check_now()

    def check_now(self) -> None:
        """Request the state at once, after a batch or a takeover has failed."""
        self._wanted.set()

    def deadline_of_batch(self, deadline: Callable[[], float]) -> Callable[[], float]:
        """Return a deadline for a batch that starts now, by ``time.monotonic()``.

        That is *deadline*; but as soon as a further partition accepts no writes, the deadline has passed: the
        batch may have a record for that partition, and rows of other partitions wait for the batch (G36).
        """
        before = _places(self.unavailable)
        return lambda: 0.0 if _places(self.unavailable) - before else deadline()

    def hung(self) -> bool:
        """Return whether a call to Kafka takes over 60 s."""
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
        for topic, number in sorted(now - before):
            _log.error(
                "partition accepts no writes; rows of its keys wait",
                error_code=PartitionUnavailable.error_code,
                reason=found[topic].reasons[number],
            )
        if before - now:
            _log.info("partitions accept writes again", partitions=len(before - now), unavailable=len(now))
            self._on_available()

    def _look(self, topics: Sequence[str]) -> Mapping[str, UnavailablePartitions] | None:
        """Return the unavailable partitions of *topics*; None if the brokers do not respond."""
        if not topics:
            return {}
        try:
            if self._admin is None:
                self._admin = self._clients.enter_context(AdminClient(client_settings(self._settings)))
            min_isr = self._min_isr(topics)
            described = self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=_ANSWER_S)
            found: dict[str, UnavailablePartitions] = {}
            for name, answer in described.items():
                partitions = _partitions(answer)
                if not partitions:
                    self._topics.discard(name)
                if reasons := _reasons(name, partitions, min_isr.get(name, 1)):
                    found[name] = UnavailablePartitions(len(partitions), reasons)
        except (KafkaException, TimeoutError):
            # No log: the circuit breaker reports brokers that do not respond. The next request uses a new
            # client, which tries all addresses, because this one may wait for a controller that is down.
            self._close()
            return None
        return found

    def _min_isr(self, topics: Sequence[str]) -> dict[str, int]:
        """Return ``min.insync.replicas`` of those of *topics* whose configuration this account may read."""
        found: dict[str, int] = {}
        for topic, config in topic_configs(self._admin, topics, _ANSWER_S).items():
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


def _partitions(answer: Any) -> Sequence[Any]:
    """Return the partitions of a described topic; empty without the topic or the right to describe it."""
    try:
        return answer.result(_ANSWER_S + 1).partitions
    except KafkaException as error:
        if _may_pass(error.args[0]):
            raise
        return ()


def _may_pass(error: KafkaError) -> bool:
    """Return whether *error* is temporary, unlike a missing topic or right."""
    return error.code() not in UNKNOWN_TOPIC and (error.retriable() or error.code() in UNREACHABLE)


def _reasons(topic: str, partitions: Sequence[Any], min_isr: int) -> dict[int, str]:
    """Return by number why partitions accept no writes: no leader, or too few replicas in sync."""
    reasons: dict[int, str] = {}
    for each in partitions:
        brokers = ", ".join(str(replica.id) for replica in each.replicas)
        if each.leader is None or each.leader.id < 0:
            reasons[each.id] = (
                f"partition {each.id} of topic {topic} has no leader; start one of the brokers {brokers}"
            )
        elif len(each.isr) < min_isr:
            reasons[each.id] = (
                f"partition {each.id} of topic {topic} has {len(each.isr)} of {min_isr} required replicas "
                f"in sync (min.insync.replicas); start the missing ones of the brokers {brokers}"
            )
    return reasons


class Maintenance:
    """Remove old SENT rows, and measure the backlog.

    Invariant: an error of these tasks neither ends the relay nor delays a heartbeat. Each task has its own
    connection and retries after an error; ``maintenance_failures_total`` counts errors.
    """

    def __init__(
        self,
        database: Database,
        connections: Connections,
        counters: Counters,
        low_watermark: LowWatermark,
        *,
        keep_h: float,
        measure_s: float,
    ) -> None:
        """Create the tasks without starting them.

        Args:
            database: Provides the connection for retention.
            connections: Opens the connection for measurements.
            counters: Gets the backlog, and counts errors.
            low_watermark: Lowest ``seq`` to measure.
            keep_h: Retention time of SENT rows, in hours.
            measure_s: Interval of measurements, in seconds.
        """
        self._database = database
        self._connections = connections
        self._counters = counters
        self._low_watermark = low_watermark
        self._keep_h = keep_h
        self._measure_s = measure_s

    async def remove_old_rows(self) -> None:
        """Remove old SENT rows at an interval until cancelled."""
        pause_s = min(_RETENTION_PAUSE_S, self._keep_h * 3_600 / _STEPS_PER_SLOT)
        while True:
            await asyncio.sleep(pause_s)
            await self._attempt("retention", self._retain)

    async def measure(self) -> None:
        """Measure the backlog at an interval until cancelled."""
        while True:
            await self._attempt("backlog measurement", self._measure_while_connected)
            await asyncio.sleep(self._measure_s)

    async def _retain(self) -> None:
        async with self._database.connection() as connection:
            steps = await retain(connection, keep_h=self._keep_h)
        if RetentionStep.EMPTIED in steps:
            _log.info("relay removed old SENT rows", steps=steps)
        elif steps:
            _log.debug("relay prepared the removal of old rows", steps=steps)

    async def _measure_while_connected(self) -> None:
        async with self._connections.connected() as connection:
            await use_partial_indexes(connection)
            while True:
                await measure_backlog(connection, self._counters, self._low_watermark.seq)
                await asyncio.sleep(self._measure_s)

    async def _attempt(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except HistoryChanged:
            raise  # the relay starts a new session
        except RelayboxError as error:
            self._counters.maintenance_failures_total += 1
            _log.warning(_FAILED, task=task, error_code=error.error_code, reason=str(error))
        except Exception as error:  # noqa: BLE001 - publishing does not depend on this work
            self._counters.maintenance_failures_total += 1
            _log.error(_FAILED, task=task, traceback=traceback_of(error))
