"""Prometheus metrics of a relay."""

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry
from relaybox.relay import Backlog, BreakerState, RelayCollector
from relaybox.relay._statistics import Counters, Statistics


def look(counters: Counters, breaker: BreakerState = BreakerState.CLOSED) -> Statistics:
    return counters.snapshot(
        lanes=(0, 1, 2),
        members=2,
        in_flight=5,
        breaker=breaker,
        partitions_unavailable=("partition 3 of topic events has no leader; start one of the brokers 1",),
        lanes_stuck=("lane 1 has published nothing for 10 s: x", "lane 2 has published nothing for 10 s: x"),
    )


def scraped(read: Callable[[], Statistics]) -> Callable[..., float | None]:
    registry = CollectorRegistry()
    registry.register(RelayCollector(read))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"relaybox_relay_{name}", labels)

    return value


def test_metrics_report_published_rows_delays_and_batches() -> None:
    counters = Counters(retried_total=3, failed_total=1)
    counters.count_published(bucket=0, rows=2, delay_s=0.004)
    counters.count_published(bucket=6, rows=1, delay_s=0.2)
    for rows in (1, 2, 2, 7_000, 20_000):
        counters.count_batch(rows=rows)
    value = scraped(lambda: look(counters))
    assert value("published_total") == 3
    assert value("retried_total") == 3
    assert value("failed_total") == 1
    assert value("lanes_owned") == 3
    assert value("publish_latency_seconds_bucket", le="0.0025") == 2
    assert value("publish_latency_seconds_count") == 3
    assert value("publish_latency_seconds_sum") == pytest.approx(0.204)
    assert [value("batch_rows_bucket", le=le) for le in ("1", "2", "5000", "10000", "+Inf")] == [
        1,
        3,
        3,
        4,
        5,
    ]
    assert value("batch_rows_sum") == 27_005


def test_metrics_report_the_backlog_by_reason() -> None:
    counters = Counters(polled_total=4, late_total=5, order_violations_total=6)
    counters.backlog = Backlog(
        pending=7,
        retrying_row=2,
        retrying_link=3,
        failed_row=4,
        failed_link=1,
        skipped=9,
        keys_blocked=5,
        oldest_pending_s=70.5,
        oldest_due_s=0.5,
        lanes=8,
        lanes_faulty=1,
    )
    value = scraped(lambda: look(counters))
    assert value("pending_rows") == 7
    assert [value("retry_queue_rows", reason=one) for one in ("row", "link")] == [2, 3]
    assert [value("failed_rows", reason=one) for one in ("row", "link")] == [4, 1]
    assert (value("skipped_rows"), value("keys_blocked")) == (9, 5)
    assert (value("oldest_pending_seconds"), value("oldest_due_seconds")) == (70.5, 0.5)
    assert (value("lanes"), value("lanes_faulty")) == (8, 1)
    assert (value("lanes_stuck"), value("partitions_unavailable")) == (2, 1)
    totals = [value(f"{name}_total") for name in ("polled_rows", "late_rows", "order_violations")]
    assert totals == [4, 5, 6]


@pytest.mark.parametrize("state", list(BreakerState))
def test_metrics_report_the_state_of_the_breaker(state: BreakerState) -> None:
    value = scraped(lambda: look(Counters(), state))
    told = {one: value("breaker_state", state=one.value) for one in BreakerState}
    assert told == {one: float(one is state) for one in BreakerState}
    assert value("link_up") == (state is not BreakerState.OPEN)


def test_metrics_report_current_statistics() -> None:
    counters = Counters()
    value = scraped(lambda: look(counters))
    counters.backlog = Backlog(pending=9)
    assert value("pending_rows") == 9
