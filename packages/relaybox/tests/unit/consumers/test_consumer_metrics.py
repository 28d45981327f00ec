"""Prometheus metrics of a consumer, its check for ``/readyz``, and the clock of its progress."""

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from relaybox.consumers import (
    ConsumerCollector,
    ConsumerStatistics,
    LetterCounts,
    PartitionLag,
    check_consumer,
)
from relaybox.consumers._statistics import HANDLER_BOUNDS_S, HandlerDurations, ProgressClock
from relaybox.telemetry import HealthState


def figures(durations: HandlerDurations | None = None, **changed: Any) -> ConsumerStatistics:
    durations = durations or HandlerDurations()
    lags = (
        PartitionLag(topic="events", partition=0, messages=7, seconds=1.5),
        PartitionLag(topic="events", partition=1, messages=None, seconds=0.0),
    )
    values = {
        "group": "g",
        "partitions": 2,
        "lags": lags,
        "buffered": 3,
        "waiting": 1,
        "running": 2,
        "handled": 10,
        "already_done": 11,
        "skipped": 12,
        "retries": 13,
        "parked": 14,
        "replayed": 15,
        "database_waits": 16,
        "kafka_unavailable": False,
        "letters": LetterCounts(letters=5, keys=4),
        "handler_counts": tuple(durations.counts),
        "handler_sum_s": durations.sum_s,
        "stalled_s": 0.0,
        "coordinator_lost_s": 0.0,
        "clients_replaced": 17,
    }
    return ConsumerStatistics(**(values | changed))


def scraped(*consumers: ConsumerStatistics) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(ConsumerCollector(*(lambda now=now: now for now in consumers)))
    return registry


def test_metrics_report_the_work_of_a_group() -> None:
    registry = scraped(figures(stalled_s=61.5))

    def value(name: str) -> float | None:
        return registry.get_sample_value(f"relaybox_consumer_{name}", {"group": "g"})

    totals = ("handled", "already_done", "skipped", "retried", "parked", "replayed")
    assert [value(f"{name}_total") for name in totals] == list(range(10, 16))
    assert [value(f"{name}_total") for name in ("database_waits", "clients_replaced")] == [16, 17]
    assert [value(name) for name in ("partitions", "unfinished_messages", "keys_waiting")] == [2, 3, 1]
    assert [value(name) for name in ("running_transactions", "link_up")] == [2, 1]
    assert [value(name) for name in ("dead_letters", "keys_blocked", "stalled_seconds")] == [5, 4, 61.5]


def test_metrics_report_the_lag_of_each_partition() -> None:
    registry = scraped(figures())

    def value(name: str, partition: str) -> float | None:
        labels = {"group": "g", "topic": "events", "partition": partition}
        return registry.get_sample_value(f"relaybox_consumer_{name}", labels)

    assert [value("lag_messages", "0"), value("lag_seconds", "0")] == [7, 1.5]
    assert [value("lag_messages", "1"), value("lag_seconds", "1")] == [None, 0]


def test_metrics_report_the_durations_of_handlers() -> None:
    durations = HandlerDurations()
    for seconds in (0.001, 0.3, 70.0):
        durations.count(seconds)
    registry = scraped(figures(durations))

    def value(name: str, **labels: str) -> float | None:
        name = f"relaybox_consumer_handler_duration_seconds_{name}"
        return registry.get_sample_value(name, {"group": "g", **labels})

    assert [value("bucket", le=le) for le in ("0.001", "0.25", "0.5", "60.0", "+Inf")] == [1, 1, 2, 2, 3]
    assert value("sum") == pytest.approx(70.301)
    assert len(durations.counts) == len(HANDLER_BOUNDS_S) + 1


def test_two_consumers_share_each_metric_with_their_groups() -> None:
    text = generate_latest(scraped(figures(), figures(group="h", handled=99))).decode()
    assert text.count("# TYPE relaybox_consumer_handled_total counter") == 1
    assert 'relaybox_consumer_handled_total{group="g"} 10.0' in text
    assert 'relaybox_consumer_handled_total{group="h"} 99.0' in text


async def test_consumer_that_makes_progress_is_ready() -> None:
    result = await check_consumer(lambda: figures(stalled_s=59.9))()
    assert (result.state, result.detail) == (HealthState.OK, None)


async def test_stalled_consumer_is_degraded_with_its_lag() -> None:
    result = await check_consumer(lambda: figures(stalled_s=60.0))()
    assert result.state is HealthState.DEGRADED
    assert result.detail == (
        "group g has finished nothing for 60 s; messages unfinished: 3, lag: 7; "
        "its log shows handlers that fail or hang"
    )


def test_clock_measures_since_the_last_finished_message() -> None:
    clock = ProgressClock(0.0)
    clock.observe(10.0, finished=0, can_work=True)
    assert clock.stalled_s(12.0) == 2.0
    clock.observe(20.0, finished=0, can_work=True)
    assert clock.stalled_s(25.0) == 15.0
    clock.observe(30.0, finished=1, can_work=True)
    assert clock.stalled_s(31.0) == 1.0


def test_clock_ignores_time_without_work_or_database() -> None:
    clock = ProgressClock(0.0)
    clock.observe(10.0, finished=0, can_work=True)
    clock.observe(80.0, finished=0, can_work=False)
    assert clock.stalled_s(100.0) == 0.0
    clock.observe(100.0, finished=0, can_work=True)
    assert clock.stalled_s(105.0) == 5.0
