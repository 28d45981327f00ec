"""The relay's figures in Prometheus' format, read from its statistics when they are asked for."""

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relaybox.relay._breaker import BreakerState
from relaybox.relay._statistics import BATCH_ROWS_BOUNDS, DELAY_BOUNDS_S, Statistics

__all__ = ("RelayCollector",)

_COUNTERS: Final[dict[str, tuple[str, Callable[[Statistics], int]]]] = {
    "published": ("Rows acknowledged by Kafka and marked SENT.", lambda look: look.published_total),
    "retried": ("Row faults that will be tried again.", lambda look: look.retried_total),
    "failed": ("Rows given up as FAILED; their keys wait.", lambda look: look.failed_total),
    "fenced": (
        "Acknowledged rows whose lane had gone to another relay before they were marked.",
        lambda look: look.fenced_total,
    ),
    "link_outages": ("How often Kafka was lost.", lambda look: look.link_outages_total),
    "polled_rows": (
        "Rows that no notification told of: the poll found them.",
        lambda look: look.polled_total,
    ),
    "late_rows": (
        "Rows published after a later one of their key, because their transaction committed late.",
        lambda look: look.late_total,
    ),
    "order_violations": (
        "Rows published after a later one of their key although they were known; must stay 0.",
        lambda look: look.order_violations_total,
    ),
    "maintenance_failures": (
        "Failed attempts to remove old rows or to measure the backlog.",
        lambda look: look.maintenance_failures_total,
    ),
}
_GAUGES: Final[dict[str, tuple[str, Callable[[Statistics], float]]]] = {
    "lanes_owned": ("Lanes this relay owns.", lambda look: len(look.lanes)),
    "lanes": ("Lanes of the outbox, whoever owns them.", lambda look: look.backlog.lanes),
    "lanes_faulty": (
        "Lanes that nobody publishes from until an operator decides.",
        lambda look: look.backlog.lanes_faulty,
    ),
    "lanes_stuck": (
        "Lanes this relay owns and could publish nothing from for 10 s.",
        lambda look: len(look.lanes_stuck),
    ),
    "partitions_unavailable": (
        "Partitions that take no writes; their keys wait.",
        lambda look: len(look.partitions_unavailable),
    ),
    "history_changed_timestamp_seconds": (
        "When PostgreSQL was found to have failed over, or to be restored; 0 for never.",
        lambda look: look.backlog.history_changed_at_s,
    ),
    "members": ("Living relays, this one included.", lambda look: look.members),
    "in_flight_rows": ("Rows sent and not yet acknowledged.", lambda look: look.in_flight),
    "pending_rows": ("PENDING rows of all lanes, counted up to 100,000.", lambda look: look.backlog.pending),
    "skipped_rows": ("Rows that an operator skipped, until purged.", lambda look: look.backlog.skipped),
    "keys_blocked": ("Keys that a FAILED row holds back.", lambda look: look.backlog.keys_blocked),
    "oldest_pending_seconds": ("Age of the first PENDING row.", lambda look: look.backlog.oldest_pending_s),
    "oldest_due_seconds": (
        "Age of the first PENDING row that no FAILED one holds back.",
        lambda look: look.backlog.oldest_due_s,
    ),
    "link_up": ("1 while Kafka answers, as far as was tried.", lambda look: look.link_up),
}
#: By whose fault: the row's own, or the link's.
_BY_REASON: Final[dict[str, tuple[str, Callable[[Statistics], tuple[int, int]]]]] = {
    "retry_queue_rows": (
        "PENDING rows that wait for their next attempt.",
        lambda look: (look.backlog.retrying_row, look.backlog.retrying_link),
    ),
    "failed_rows": (
        "FAILED rows: wait for an operator (row), or for Kafka (link).",
        lambda look: (look.backlog.failed_row, look.backlog.failed_link),
    ),
}
_PREFIX: Final = "relaybox_relay_"


class RelayCollector(Collector):
    """Register it once: ``registry.register(RelayCollector(relay.statistics))``."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance, so that registering asks for no figures."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every figure as of now; what is read from the outbox, as of at most ``RELAY_POLL_INTERVAL`` ago."""
        look = self._statistics()
        for name, (text, count) in _COUNTERS.items():
            yield CounterMetricFamily(_PREFIX + name, text, value=count(look))
        for name, (text, read) in _GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=read(look))
        for name, (text, read_both) in _BY_REASON.items():
            family = GaugeMetricFamily(_PREFIX + name, text, labels=["reason"])
            for reason, value in zip(("row", "link"), read_both(look), strict=True):
                family.add_metric([reason], value)
            yield family
        state = GaugeMetricFamily(_PREFIX + "breaker_state", "1 for the state it is in.", labels=["state"])
        for one in BreakerState:
            state.add_metric([one.value], float(look.breaker is one))
        yield state
        yield HistogramMetricFamily(
            _PREFIX + "publish_latency_seconds",
            "Seconds from an event's row in the outbox to Kafka's acknowledgement.",
            buckets=_cumulative(DELAY_BOUNDS_S, look.delay_counts),
            sum_value=look.delay_sum_s,
        )
        yield HistogramMetricFamily(
            _PREFIX + "batch_rows",
            "Rows that one batch published.",
            buckets=_cumulative(BATCH_ROWS_BOUNDS, look.batch_counts),
            sum_value=look.batch_rows_sum,
        )


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    """Buckets as Prometheus wants them: each holds those below it too."""
    return list(zip([*map(str, bounds), "+Inf"], accumulate(counts), strict=True))
