"""Statistics of a consumer, its Prometheus metrics, its check for ``/readyz``, and its signals."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import auto
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relaybox.consumers._coordinator_clock import COORDINATOR_LOST_S
from relaybox.signals import Signal
from relaybox.telemetry import Check, CheckResult, HealthState, cumulative_buckets

__all__ = (
    "HANDLER_BOUNDS_S",
    "STALLED_S",
    "ConsumerCollector",
    "ConsumerSignal",
    "ConsumerStatistics",
    "HandlerDurations",
    "LetterCounts",
    "PartitionLag",
    "ProgressClock",
    "check_consumer",
)

#: Upper bounds, in seconds, of the buckets of the histogram of handler calls; one more bucket has no bound.
HANDLER_BOUNDS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
#: A consumer with work that has finished nothing for this time is DEGRADED.
STALLED_S: Final = 60.0
_PREFIX: Final = "relaybox_consumer_"
_OK: Final = CheckResult(state=HealthState.OK)


class ConsumerSignal(Signal):
    """A step that a consumer announces, for tests and statistics."""

    ASSIGNED = auto()
    REVOKED = auto()
    COMMITTED = auto()  # the transaction of an event's handler has committed
    ALREADY_DONE = auto()  # the group had processed or parked the event before
    TYPE_NOT_SUBSCRIBED = auto()
    RETRYING = auto()
    SPLIT = auto()  # a transaction of several events or letters failed; it is repeated with fewer
    PARKED = auto()
    REPLAYED = auto()
    REPLAY_FAILED = auto()  # the letter is parked again
    WAITING_FOR_DATABASE = auto()
    OFFSETS_COMMITTED = auto()
    PAUSED = auto()  # partitions with too many unfinished messages
    RESUMED = auto()  # paused partitions
    KAFKA_UNAVAILABLE = auto()
    KAFKA_CLIENT_REPLACED = auto()  # no coordinator was found, a poll hung, or certificate files were renewed


@dataclass(frozen=True, kw_only=True, slots=True)
class LetterCounts:
    """Dead letters of a group that are neither replayed nor discarded, counted every 10 s up to 10,000."""

    letters: int = 0
    #: Keys whose later messages are parked behind a letter.
    keys: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionLag:
    """Lag of one assigned partition."""

    topic: str
    partition: int
    #: Offsets from the oldest unfinished message to the end of the partition as of the last fetch; None
    #: until the first fetch. Markers of transactions are counted too, because they have offsets.
    messages: int | None
    #: Age of the oldest unfinished message that was read, by the message's timestamp; 0 if there is none.
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ConsumerStatistics:
    """Figures of one :class:`~relaybox.consumers.Consumer` since its start."""

    group: str
    #: Partitions assigned now; 0 before the first assignment, and while other members have all of them.
    partitions: int
    #: One per assigned partition.
    lags: tuple[PartitionLag, ...]
    #: Messages read but not finished.
    buffered: int
    #: Keys that wait for their next attempt or for the database.
    waiting: int
    #: Transactions that are running now.
    running: int
    #: Events whose handler's transaction has committed.
    handled: int
    #: Redelivered events that this group had processed or parked before.
    already_done: int
    #: Messages of types without a subscription.
    skipped: int
    #: Failed attempts of handlers that were retried.
    retries: int
    #: Messages parked as dead letters, those behind another letter of their key included.
    parked: int
    #: Dead letters that were replayed.
    replayed: int
    #: Attempts that were retried because of a database error.
    database_waits: int
    #: Whether no broker responds.
    kafka_unavailable: bool
    #: Unresolved dead letters of the whole group.
    letters: LetterCounts
    #: Number of handler calls by duration, failed ones included: one count per bound of ``HANDLER_BOUNDS_S``,
    #: and one for all longer calls; not cumulative.
    handler_counts: tuple[int, ...]
    #: Sum of the durations of all handler calls in seconds.
    handler_sum_s: float
    #: Seconds for which the consumer has finished nothing although it had work and neither database nor
    #: Kafka was unavailable; 0 otherwise.
    stalled_s: float
    #: Seconds for which the Kafka client found no coordinator of the group although brokers respond.
    coordinator_lost_s: float
    #: Kafka clients that were replaced because they found no coordinator for 60 s, because a poll hung, or
    #: because certificate files were renewed.
    clients_replaced: int

    @property
    def lag_messages(self) -> int:
        """Sum of the lags, in offsets, of the assigned partitions; an unknown lag counts as 0."""
        return sum(one.messages or 0 for one in self.lags)


@dataclass(kw_only=True, slots=True)
class HandlerDurations:
    """Histogram of the durations of handlers' calls, in seconds; mutable."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(HANDLER_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def count(self, seconds: float) -> None:
        """Count one call of a handler."""
        self.counts[bisect_left(HANDLER_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


class ProgressClock:
    """Measure for how long a consumer that can work has finished nothing."""

    def __init__(self, now_s: float) -> None:
        self._since_s = now_s
        self._finished = 0
        self._can_work = False

    def observe(self, now_s: float, *, finished: int, can_work: bool) -> None:
        """Restart the measured time if something was finished, or if the consumer could not work before.

        Args:
            now_s: The time of a monotonic clock.
            finished: Messages and letters finished so far.
            can_work: Whether there is work, and neither database nor Kafka is unavailable.
        """
        if finished != self._finished or not self._can_work:
            self._since_s = now_s
        self._finished, self._can_work = finished, can_work

    def stalled_s(self, now_s: float) -> float:
        """Return the seconds since the last progress; 0 if idle, or if database or Kafka is unavailable."""
        return now_s - self._since_s if self._can_work else 0.0


_COUNTERS: Final[dict[str, tuple[str, Callable[[ConsumerStatistics], int]]]] = {
    "handled": ("Events whose handler's transaction has committed.", lambda now: now.handled),
    "already_done": (
        "Redelivered events that the group had processed or parked before.",
        lambda now: now.already_done,
    ),
    "skipped": ("Messages of types without a subscription.", lambda now: now.skipped),
    "retried": ("Failed attempts of handlers that were retried.", lambda now: now.retries),
    "parked": ("Messages parked as dead letters.", lambda now: now.parked),
    "replayed": ("Dead letters that were replayed.", lambda now: now.replayed),
    "database_waits": (
        "Attempts that were retried because of a database error.",
        lambda now: now.database_waits,
    ),
    "clients_replaced": (
        "Kafka clients that found no coordinator, hung or had outdated certificates, and were replaced.",
        lambda now: now.clients_replaced,
    ),
}


_GAUGES: Final[dict[str, tuple[str, Callable[[ConsumerStatistics], float]]]] = {
    "partitions": ("Partitions assigned to this consumer.", lambda now: now.partitions),
    "unfinished_messages": ("Messages read but not finished.", lambda now: now.buffered),
    "keys_waiting": ("Keys that wait for their next attempt or the database.", lambda now: now.waiting),
    "running_transactions": ("Transactions that are running now.", lambda now: now.running),
    "link_up": ("1 if a broker responds, 0 if none does.", lambda now: not now.kafka_unavailable),
    "dead_letters": (
        "Unresolved dead letters of the group, counted up to 10,000.",
        lambda now: now.letters.letters,
    ),
    "keys_blocked": ("Keys of the group that a dead letter blocks.", lambda now: now.letters.keys),
    "coordinator_lost_seconds": (
        "Seconds without a coordinator of the group although brokers respond.",
        lambda now: now.coordinator_lost_s,
    ),
    "stalled_seconds": (
        "Seconds for which the consumer has finished nothing although it could work.",
        lambda now: now.stalled_s,
    ),
}


class ConsumerCollector(Collector):
    """Prometheus metrics of consumers, for ``registry.register(ConsumerCollector(consumer.statistics))``."""

    def __init__(self, *statistics: Callable[[], ConsumerStatistics]) -> None:
        """Pass one function for each consumer of the process; their groups are labels."""
        self._statistics = statistics

    def describe(self) -> Iterator[Metric]:
        """Return no descriptions; without this method, a registry may call :meth:`collect` for them."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return all metrics; lags are refreshed about every 1 s, counts of dead letters every 10 s."""
        consumers = [read() for read in self._statistics]
        for name, (text, count) in _COUNTERS.items():
            counter = CounterMetricFamily(_PREFIX + name, text, labels=["group"])
            for now in consumers:
                counter.add_metric([now.group], count(now))
            yield counter
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(_PREFIX + name, text, labels=["group"])
            for now in consumers:
                gauge.add_metric([now.group], read(now))
            yield gauge
        yield from _lags(consumers)
        durations = HistogramMetricFamily(
            _PREFIX + "handler_duration_seconds",
            "Seconds that a call of a handler took, failed ones included.",
            labels=["group"],
        )
        for now in consumers:
            buckets = cumulative_buckets(HANDLER_BOUNDS_S, now.handler_counts)
            durations.add_metric([now.group], buckets=buckets, sum_value=now.handler_sum_s)
        yield durations


def _lags(consumers: list[ConsumerStatistics]) -> Iterator[Metric]:
    labels = ["group", "topic", "partition"]
    messages = GaugeMetricFamily(
        _PREFIX + "lag_messages",
        "Offsets from the oldest unfinished message to the end of the partition.",
        labels=labels,
    )
    seconds = GaugeMetricFamily(
        _PREFIX + "lag_seconds", "Age of the oldest unfinished message that was read.", labels=labels
    )
    for now in consumers:
        for one in now.lags:
            values = [now.group, one.topic, str(one.partition)]
            if one.messages is not None:
                messages.add_metric(values, one.messages)
            seconds.add_metric(values, one.seconds)
    yield messages
    yield seconds


def check_consumer(statistics: Callable[[], ConsumerStatistics]) -> Check:
    """Return a check for ``/readyz``: DEGRADED while a consumer with work has finished nothing for 60 s.

    The check is also DEGRADED if the consumer's Kafka client has found no coordinator of the group for 60 s
    although brokers respond. The time in which the database or Kafka is unavailable does not count: both have
    checks of their own.

    Args:
        statistics: Returns the consumer's statistics, as :meth:`Consumer.statistics`.
    """

    async def check() -> CheckResult:
        now = statistics()
        if now.coordinator_lost_s >= COORDINATOR_LOST_S:
            return CheckResult(
                state=HealthState.DEGRADED,
                detail=f"group {now.group} has no coordinator for {now.coordinator_lost_s:.0f} s; check the "
                "brokers and the topic __consumer_offsets",
            )
        if now.stalled_s < STALLED_S:
            return _OK
        return CheckResult(
            state=HealthState.DEGRADED,
            detail=f"group {now.group} has finished nothing for {now.stalled_s:.0f} s; messages unfinished: "
            f"{now.buffered}, lag: {now.lag_messages}; its log shows handlers that fail or hang",
        )

    return check
