"""Statistics of a relay, its Prometheus metrics, its check for ``/readyz``, and its signals for tests."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relaybox.relay._plan import BreakerState
from relaybox.signals import Signal
from relaybox.telemetry import Check, CheckResult, HealthState, cumulative_buckets

__all__ = (
    "BATCH_ROWS_BOUNDS",
    "DELAY_BOUNDS_S",
    "Backlog",
    "Counters",
    "RelayCollector",
    "RelaySignal",
    "Statistics",
    "check_relay",
)

#: Upper bounds of the histogram of delays, in seconds; one more bucket has no bound. The delay of a row is
#: the time from ``created_at`` (start of the transaction that wrote the row) to ``sent_at`` (mark as SENT).
DELAY_BOUNDS_S: Final = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
#: Maximum length of :attr:`Statistics.troubles`.
TROUBLES_MAX: Final = 20
#: Upper bounds of the histogram of rows per published batch; one more bucket has no bound.
BATCH_ROWS_BOUNDS: Final = (1, 2, 5, 10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)
_PREFIX: Final = "relaybox_relay_"
_OK: Final = CheckResult(state=HealthState.OK)


class RelaySignal(Signal):
    """A step of a relay, for tests that wait for this step."""

    LANES_CHANGED = "lanes_changed"
    BATCH_TAKEN = "batch_taken"  # passed to the delivery, not claimed yet
    BATCH_CLAIMED = "batch_claimed"  # claimed in PostgreSQL, if the delivery needs claims
    BATCH_PUBLISHED = "batch_published"  # acknowledged or rejected, not recorded yet
    BATCH_MARKED = "batch_marked"
    ROWS_CHARGED = "rows_charged"
    IDLE = "idle"  # no row to publish; the relay waits for a notification, a retry or the next poll
    LINK_DOWN = "link_down"
    LINK_UP = "link_up"
    HISTORY_CHANGED = "history_changed"  # PostgreSQL failed over or was restored; a new session begins
    STOPPED = "stopped"


@dataclass(frozen=True, kw_only=True, slots=True)
class Backlog:
    """The backlog of the outbox, measured every ``RELAY_POLL_INTERVAL``; rows are counted up to 100,000."""

    #: PENDING rows.
    pending: int = 0
    #: PENDING rows that wait for their next attempt after a fault of the row.
    retrying_row: int = 0
    #: PENDING rows that wait for their next attempt after a failure of the link to Kafka.
    retrying_link: int = 0
    #: FAILED rows that wait for an operator.
    failed_row: int = 0
    #: FAILED rows because of the link to Kafka, which become PENDING when Kafka is available again.
    failed_link: int = 0
    #: Rows that an operator skipped, until they are purged.
    skipped: int = 0
    #: Keys with a FAILED row; later rows of these keys are not published.
    keys_blocked: int = 0
    #: Age in seconds of the PENDING row with the lowest ``seq``; 0 if no row is PENDING.
    oldest_pending_s: float = 0.0
    #: Age in seconds of the first PENDING row that no FAILED row blocks; 0 if there is none. If more than
    #: 10,000 rows are PENDING and the first 10,000 are blocked, the value of ``oldest_pending_s``.
    oldest_due_s: float = 0.0
    #: Number of all lanes (slices of keys) of the outbox.
    lanes: int = 0
    #: Number of lanes with a fault, which wait for an operator.
    lanes_faulty: int = 0
    #: Time of the last failover or restore that a relay found, in seconds since 1970; 0: never (G35).
    history_changed_at_s: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Statistics:
    """Snapshot of a relay: totals since its start, and its current state."""

    #: Rows acknowledged by Kafka and marked SENT.
    published_total: int
    #: Failed attempts to publish a row that will be retried.
    retried_total: int
    #: Rows marked FAILED, which block their keys until an operator retries or skips them.
    failed_total: int
    #: Acknowledged rows that a statement did not mark SENT: another relay had taken their lane, or an earlier
    #: attempt of the statement had marked them and its response was lost.
    fenced_total: int
    #: Failures of the link to Kafka that opened the circuit breaker; a failed probe is not counted again.
    link_outages_total: int
    #: Rows that the relay found by polling, because no notification had arrived for them.
    polled_total: int
    #: Rows published after a later row of their key, because their transaction committed late (G22).
    late_total: int
    #: Rows published after a later row of their key although the relay had read them before; must stay 0
    #: (G21).
    order_violations_total: int
    #: Failed attempts to remove old rows or to measure the backlog; the relay retries both.
    maintenance_failures_total: int
    #: Published rows by delay: one count per bound of ``DELAY_BOUNDS_S``, and one for all above; not
    #: cumulative.
    delay_counts: tuple[int, ...]
    #: Sum of the delays of all published rows, in seconds.
    delay_sum_s: float
    #: Published batches by number of rows: one count per bound of ``BATCH_ROWS_BOUNDS``, and one for all
    #: above; not cumulative.
    batch_counts: tuple[int, ...]
    #: Sum of the rows of all published batches.
    batch_rows_sum: int
    #: Numbers of the lanes (slices of keys) that the relay owns.
    lanes: tuple[int, ...]
    #: Number of running relays, including this one.
    members: int
    #: Number of rows in batches in flight.
    in_flight: int
    backlog: Backlog
    #: State of the circuit breaker.
    breaker: BreakerState
    #: A sentence for each partition that accepts no writes (G36).
    partitions_unavailable: tuple[str, ...]
    #: A sentence for each owned lane whose attempts to publish have failed for 10 s.
    lanes_stuck: tuple[str, ...]

    @property
    def troubles(self) -> tuple[str, ...]:
        """Reasons why some rows are not published; at most 20 sentences."""
        return (*self.partitions_unavailable, *self.lanes_stuck)[:TROUBLES_MAX]

    @property
    def link_up(self) -> bool:
        """Whether Kafka responded to the last attempt."""
        return self.breaker is not BreakerState.OPEN


@dataclass(kw_only=True, slots=True)
class Counters:
    """Mutable counters of :class:`Statistics`; the parts of a relay increment them in its event loop."""

    published_total: int = 0
    retried_total: int = 0
    failed_total: int = 0
    fenced_total: int = 0
    link_outages_total: int = 0
    polled_total: int = 0
    late_total: int = 0
    order_violations_total: int = 0
    maintenance_failures_total: int = 0
    delay_counts: list[int] = field(default_factory=lambda: [0] * (len(DELAY_BOUNDS_S) + 1))
    delay_sum_s: float = 0.0
    batch_counts: list[int] = field(default_factory=lambda: [0] * (len(BATCH_ROWS_BOUNDS) + 1))
    batch_rows_sum: int = 0
    backlog: Backlog = Backlog()

    def count_published(self, *, bucket: int, rows: int, delay_s: float) -> None:
        """Count rows that were marked SENT, and whose delays belong to one bucket of the histogram.

        Args:
            bucket: Index of the bucket in ``delay_counts``.
            rows: Number of rows.
            delay_s: Sum of the delays of the rows, in seconds; see :data:`DELAY_BOUNDS_S`.
        """
        self.published_total += rows
        self.delay_counts[bucket] += rows
        self.delay_sum_s += delay_s

    def count_batch(self, *, rows: int) -> None:
        """Count a published batch of *rows* rows."""
        self.batch_counts[bisect_left(BATCH_ROWS_BOUNDS, rows)] += 1
        self.batch_rows_sum += rows

    def snapshot(
        self,
        *,
        lanes: tuple[int, ...],
        members: int,
        in_flight: int,
        breaker: BreakerState,
        partitions_unavailable: tuple[str, ...],
        lanes_stuck: tuple[str, ...],
    ) -> Statistics:
        """Return the counters together with the current state, as named in :class:`Statistics`."""
        return Statistics(
            published_total=self.published_total,
            retried_total=self.retried_total,
            failed_total=self.failed_total,
            fenced_total=self.fenced_total,
            link_outages_total=self.link_outages_total,
            polled_total=self.polled_total,
            late_total=self.late_total,
            order_violations_total=self.order_violations_total,
            maintenance_failures_total=self.maintenance_failures_total,
            delay_counts=tuple(self.delay_counts),
            delay_sum_s=self.delay_sum_s,
            batch_counts=tuple(self.batch_counts),
            batch_rows_sum=self.batch_rows_sum,
            lanes=lanes,
            members=members,
            in_flight=in_flight,
            backlog=self.backlog,
            breaker=breaker,
            partitions_unavailable=partitions_unavailable,
            lanes_stuck=lanes_stuck,
        )


_COUNTERS: Final[dict[str, tuple[str, Callable[[Statistics], int]]]] = {
    "published": ("Rows acknowledged by Kafka and marked SENT.", lambda now: now.published_total),
    "retried": ("Failures of rows that the relay will try again.", lambda now: now.retried_total),
    "failed": ("Rows marked FAILED; their keys are blocked.", lambda now: now.failed_total),
    "fenced": (
        "Acknowledged rows whose lane another relay had taken before they were marked.",
        lambda now: now.fenced_total,
    ),
    "link_outages": ("How often the link to Kafka failed.", lambda now: now.link_outages_total),
    "polled_rows": (
        "Rows found by polling, because no notification had announced them.",
        lambda now: now.polled_total,
    ),
    "late_rows": (
        "Rows published after a later row of their key, because their transaction committed late.",
        lambda now: now.late_total,
    ),
    "order_violations": (
        "Rows published after a later row of their key although the relay had read them; must stay 0.",
        lambda now: now.order_violations_total,
    ),
    "maintenance_failures": (
        "Failed attempts to remove old rows or to measure the backlog.",
        lambda now: now.maintenance_failures_total,
    ),
}


_GAUGES: Final[dict[str, tuple[str, Callable[[Statistics], float]]]] = {
    "lanes_owned": ("Lanes this relay owns.", lambda now: len(now.lanes)),
    "lanes": ("All lanes of the outbox.", lambda now: now.backlog.lanes),
    "lanes_faulty": (
        "Lanes from which no relay publishes until an operator decides.",
        lambda now: now.backlog.lanes_faulty,
    ),
    "lanes_stuck": (
        "Owned lanes from which the relay has tried to publish for 10 s and could not.",
        lambda now: len(now.lanes_stuck),
    ),
    "partitions_unavailable": (
        "Partitions that accept no writes.",
        lambda now: len(now.partitions_unavailable),
    ),
    "history_changed_timestamp_seconds": (
        "When the relay found that PostgreSQL had failed over or been restored; 0 for never.",
        lambda now: now.backlog.history_changed_at_s,
    ),
    "members": ("Live relays, including this one.", lambda now: now.members),
    "in_flight_rows": ("Rows sent and not yet acknowledged.", lambda now: now.in_flight),
    "pending_rows": ("PENDING rows of all lanes, counted up to 100,000.", lambda now: now.backlog.pending),
    "skipped_rows": ("Rows that an operator skipped, until purged.", lambda now: now.backlog.skipped),
    "keys_blocked": ("Keys that a FAILED row blocks.", lambda now: now.backlog.keys_blocked),
    "oldest_pending_seconds": ("Age of the first PENDING row.", lambda now: now.backlog.oldest_pending_s),
    "oldest_due_seconds": (
        "Age of the first PENDING row that no FAILED row blocks.",
        lambda now: now.backlog.oldest_due_s,
    ),
    "link_up": ("1 while Kafka responds.", lambda now: now.link_up),
}


#: Metrics with the label ``reason``: a fault of the row, or of the link.
_BY_REASON: Final[dict[str, tuple[str, Callable[[Statistics], tuple[int, int]]]]] = {
    "retry_queue_rows": (
        "PENDING rows that wait for their next attempt.",
        lambda now: (now.backlog.retrying_row, now.backlog.retrying_link),
    ),
    "failed_rows": (
        "FAILED rows: wait for an operator (row), or for Kafka (link).",
        lambda now: (now.backlog.failed_row, now.backlog.failed_link),
    ),
}


class RelayCollector(Collector):
    """Prometheus metrics of a relay, for ``registry.register(RelayCollector(relay.statistics))``."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def describe(self) -> Iterator[Metric]:
        """Return no descriptions. Without this method, ``register`` may call :meth:`collect` instead."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return all metrics; metrics of the backlog are measured every ``RELAY_POLL_INTERVAL`` seconds."""
        now = self._statistics()
        for name, (text, count) in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=count(now))
        for name, (text, read) in _GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=read(now))
        for name, (text, read_both) in _BY_REASON.items():
            family = GaugeMetricFamily(_PREFIX + name, text, labels=["reason"])
            for reason, value in zip(("row", "link"), read_both(now), strict=True):
                family.add_metric([reason], value)
            yield family
        state = GaugeMetricFamily(_PREFIX + "breaker_state", "1 for the current state.", labels=["state"])
        for one in BreakerState:
            state.add_metric([one.value], float(now.breaker is one))
        yield state
        yield HistogramMetricFamily(
            _PREFIX + "publish_latency_seconds",
            "Seconds from the start of the transaction that wrote the row to the mark as SENT.",
            buckets=cumulative_buckets(DELAY_BOUNDS_S, now.delay_counts),
            sum_value=now.delay_sum_s,
        )
        yield HistogramMetricFamily(
            _PREFIX + "batch_rows",
            "Rows that one batch published.",
            buckets=cumulative_buckets(BATCH_ROWS_BOUNDS, now.batch_counts),
            sum_value=now.batch_rows_sum,
        )


def check_relay(statistics: Callable[[], Statistics]) -> Check:
    """Return a check for ``/readyz`` that is DEGRADED while some rows of a relay cannot be published (G36).

    The check never returns FAILED, because the rows of all other keys are published.

    Args:
        statistics: Returns the relay's statistics, as :meth:`Relay.statistics`.
    """

    async def check() -> CheckResult:
        troubles = statistics().troubles
        return CheckResult(state=HealthState.DEGRADED, detail="; ".join(troubles)) if troubles else _OK

    return check
