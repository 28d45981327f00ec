"""Prometheus metrics of a task runner."""

import pytest
from prometheus_client import CollectorRegistry
from relaybox.tasks import RunnerStatistics, TaskBacklog, TaskCollector
from relaybox.tasks._statistics import AttemptDurations


def test_metrics_report_backlog_attempts_and_durations() -> None:
    durations = AttemptDurations()
    for seconds in (0.01, 3.0, 2_000.0):
        durations.count(seconds)
    now = RunnerStatistics(
        running=2,
        ended=3,
        lost=4,
        postponed=5,
        released=6,
        backlog=TaskBacklog(pending=7, running=8, expired=9, oldest_pending_s=10.5),
        attempt_counts=tuple(durations.counts),
        attempt_sum_s=durations.sum_s,
    )
    registry = CollectorRegistry()
    registry.register(TaskCollector(lambda: now))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"relaybox_tasks_{name}", labels)

    names = ("held", "pending", "running", "expired_leases", "oldest_pending_seconds")
    assert [value(name) for name in names] == [2, 7, 8, 9, 10.5]
    outcomes = ("ended", "lost", "postponed", "released")
    assert [value("attempts_total", outcome=one) for one in outcomes] == [3, 4, 5, 6]
    buckets = [
        value("attempt_duration_seconds_bucket", le=le) for le in ("0.01", "2.5", "5.0", "1800.0", "+Inf")
    ]
    assert buckets == [1, 1, 2, 2, 3]
    assert value("attempt_duration_seconds_sum") == pytest.approx(2_003.01)
