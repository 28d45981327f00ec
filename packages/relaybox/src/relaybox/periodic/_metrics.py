"""Export the state of all schedules as Prometheus metrics."""

from typing import Final

from prometheus_client import CollectorRegistry, Gauge

from relaybox.db import Executor, load_queries

__all__ = ("ScheduleMetrics",)

_SQL: Final = load_queries(__package__ or "relaybox.periodic", "periodic.sql")
#: Maximum number of schedules with metrics.
_SCHEDULES_MAX: Final = 1_000


class ScheduleMetrics:
    """Metrics of recurring tasks and shared jobs; the same in each process that measures them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._overdue = _gauge(
            "relaybox_schedule_overdue_seconds",
            "Seconds for which a tick has been due; 0 if none is.",
            registry,
        )
        self._failed = _gauge(
            "relaybox_schedule_failed", "1 if the last tick or run that ended has failed.", registry
        )
        self._duration = _gauge(
            "relaybox_schedule_last_duration_seconds",
            "Seconds from the last tick that ended to its end.",
            registry,
        )
        self._names = set[str]()

    async def measure(self, db: Executor) -> None:
        """Set the metrics of at most 1,000 schedules, and remove the metrics of deleted schedules.

        Raises:
            DatabaseError: PostgreSQL is unreachable or too busy, or rejects the query.
        """
        rows = await db.fetch(_SQL["measure"], _SCHEDULES_MAX)
        names = {row["name"] for row in rows}
        for row in rows:
            self._overdue.labels(row["name"]).set(row["overdue_s"])
            self._failed.labels(row["name"]).set(row["failed"])
            if row["last_duration_s"] is not None:
                self._duration.labels(row["name"]).set(row["last_duration_s"])
        for name in self._names - names:
            for gauge in (self._overdue, self._failed):
                gauge.labels(name).set(0)  # in multi-process mode a removed value would stay
            for gauge in (self._overdue, self._failed, self._duration):
                gauge.remove(name)
        self._names = names


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, ["schedule"], registry=registry, multiprocess_mode="mostrecent")
