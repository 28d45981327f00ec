"""Statistics of a task runner, and its Prometheus metrics."""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from relaybox.telemetry import cumulative_buckets

__all__ = ("AttemptDurations", "RunnerStatistics", "TaskBacklog", "TaskCollector")

#: Upper bounds, in seconds, of the buckets of the histogram of attempts; one more bucket has no bound.
_ATTEMPT_BOUNDS_S: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0)
_PREFIX: Final = "relaybox_tasks_"


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskBacklog:
    """Open tasks of a runner's types in the database, measured every 10 s; each count is at most 10,000."""

    #: PENDING tasks that a runner may claim, without those that are suspended until a later time.
    pending: int = 0
    #: RUNNING tasks with a valid lease, including failed ones that wait for their next attempt.
    running: int = 0
    #: RUNNING tasks whose lease has ended; a runner claims them again.
    expired: int = 0
    #: The longest time in seconds for which one of the tasks in *pending* could have been claimed: since its
    #: creation, the time until which it was suspended, its release or its retry; 0 if there is no such task.
    oldest_pending_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class RunnerStatistics:
    """Numbers of tasks of one :class:`~relaybox.tasks.TaskRunner` since its start."""

    #: Tasks held now.
    running: int
    #: Tasks that their worker completed or failed.
    ended: int
    #: Tasks that were cancelled or taken over while held, or that PostgreSQL failed to postpone or release.
    lost: int
    #: Failed attempts that are retried after a pause.
    postponed: int
    #: Tasks released when the runner stopped.
    released: int
    backlog: TaskBacklog
    #: Number of attempts by duration: one count per bound of the histogram, and one for all longer attempts;
    #: not cumulative.
    attempt_counts: tuple[int, ...]
    #: Sum of the durations of all attempts in seconds.
    attempt_sum_s: float


@dataclass(kw_only=True, slots=True)
class AttemptDurations:
    """Histogram of the durations of attempts, in seconds; mutable."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_ATTEMPT_BOUNDS_S) + 1))
    sum_s: float = 0.0

    def count(self, seconds: float) -> None:
        """Count one attempt."""
        self.counts[bisect_left(_ATTEMPT_BOUNDS_S, seconds)] += 1
        self.sum_s += seconds


_GAUGES: Final[dict[str, tuple[str, Callable[[RunnerStatistics], float]]]] = {
    "held": ("Tasks that this runner holds.", lambda now: now.running),
    "pending": ("PENDING tasks, counted up to 10,000.", lambda now: now.backlog.pending),
    "running": ("RUNNING tasks with a valid lease, counted up to 10,000.", lambda now: now.backlog.running),
    "expired_leases": ("RUNNING tasks whose lease has ended.", lambda now: now.backlog.expired),
    "oldest_pending_seconds": (
        "Longest time for which a PENDING task could have been claimed.",
        lambda now: now.backlog.oldest_pending_s,
    ),
}


class TaskCollector(Collector):
    """Prometheus metrics of a task runner, for ``registry.register(TaskCollector(runner.statistics))``."""

    def __init__(self, statistics: Callable[[], RunnerStatistics]) -> None:
        self._statistics = statistics

    def describe(self) -> Iterator[Metric]:
        """Return no descriptions; without this method, a registry may call :meth:`collect` for them."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Return all metrics; those of the backlog are measured every 10 s."""
        now = self._statistics()
        for name, (text, read) in _GAUGES.items():
            yield GaugeMetricFamily(_PREFIX + name, text, value=read(now))
        attempts = CounterMetricFamily(_PREFIX + "attempts", "Attempts by their outcome.", labels=["outcome"])
        for outcome in ("ended", "lost", "postponed", "released"):
            attempts.add_metric([outcome], getattr(now, outcome))
        yield attempts
        yield HistogramMetricFamily(
            _PREFIX + "attempt_duration_seconds",
            "Seconds that an attempt took, failed ones included.",
            buckets=cumulative_buckets(_ATTEMPT_BOUNDS_S, now.attempt_counts),
            sum_value=now.attempt_sum_s,
        )
