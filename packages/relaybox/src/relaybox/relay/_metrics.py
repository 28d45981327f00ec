"""The relay's figures in Prometheus' format, read from its statistics when they are asked for."""

from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relaybox.relay._statistics import DELAY_BOUNDS_S, Statistics

__all__ = ("RelayCollector",)

_COUNTERS: Final = {
    "published": "Rows acknowledged by Kafka and marked SENT.",
    "retried": "Row faults that will be tried again.",
    "failed": "Rows given up as FAILED; their keys wait for an operator.",
    "fenced": "Acknowledged rows whose lane had gone to another relay before they were marked.",
    "link_outages": "How often Kafka was lost.",
}
_GAUGES: Final[dict[str, tuple[str, Callable[[Statistics], float]]]] = {
    "lanes_owned": ("Lanes this relay owns.", lambda look: len(look.lanes)),
    "members": ("Living relays, this one included.", lambda look: look.members),
    "in_flight_rows": ("Rows sent and not yet acknowledged.", lambda look: look.in_flight),
    "pending_rows": ("PENDING rows of all lanes, counted up to 100,000.", lambda look: look.pending),
    "retry_queue_rows": ("PENDING rows that wait for their next attempt.", lambda look: look.retrying),
    "failed_rows": ("FAILED rows that wait for an operator.", lambda look: look.failed),
    "oldest_pending_seconds": ("Age of the first PENDING row.", lambda look: look.oldest_pending_s),
    "link_up": ("1 while Kafka answers, as far as was tried.", lambda look: look.link_up),
}


class RelayCollector(Collector):
    """Register it once: ``registry.register(RelayCollector(relay.statistics))``."""

    def __init__(self, statistics: Callable[[], Statistics]) -> None:
        self._statistics = statistics

    def describe(self) -> Iterator[Metric]:
        """Nothing in advance, so that registering asks for no figures."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Every figure as of now."""
        look = self._statistics()
        for name, text in _COUNTERS.items():
            value: int = getattr(look, f"{name}_total")
            yield CounterMetricFamily(f"relaybox_relay_{name}", text, value=value)
        for name, (text, read) in _GAUGES.items():
            yield GaugeMetricFamily(f"relaybox_relay_{name}", text, value=read(look))
        bounds = [*map(str, DELAY_BOUNDS_S), "+Inf"]
        yield HistogramMetricFamily(
            "relaybox_relay_publish_latency_seconds",
            "Seconds from an event's row in the outbox to Kafka's acknowledgement.",
            buckets=list(zip(bounds, accumulate(look.delay_counts), strict=True)),
            sum_value=look.delay_sum_s,
        )
