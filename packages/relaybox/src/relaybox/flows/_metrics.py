"""Prometheus metrics of flows."""

from collections import Counter as Counts
from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge

from relaybox.db import Database, load_queries
from relaybox.flows._definition import FlowDefinition
from relaybox.periodic import PeriodicJob

__all__ = ("FlowMetrics",)

_SQL: Final = load_queries(__package__ or "relaybox.flows", "flows.sql")
_MEASURE_S: Final = 10.0
#: Largest number of flows that the query counts in one state; this bounds the cost of the query.
_COUNT_MAX: Final = 10_000
_STATES: Final = ("waiting", "running", "failed")


class FlowMetrics(PeriodicJob):
    """Measure flows every 10 s, and count their failures; create one object per service with flow workers.

    Pass the object to :func:`flow_workers` too, so that failed steps and expired waits are counted.
    """

    def __init__(
        self, database: Database, definitions: Iterable[FlowDefinition], registry: CollectorRegistry
    ) -> None:
        """Register the metrics of *definitions* in *registry*; versions of a flow are counted together."""
        super().__init__(self._measure, name="measure flows", interval_s=_MEASURE_S)
        self._database = database
        self._names = {one.task_type: one.name for one in definitions}
        self._flows = Gauge(
            "relaybox_flows",
            "Flows by state: waiting, running or failed; completed and cancelled flows are not counted.",
            ("flow", "state"),
            registry=registry,
        )
        self._oldest = Gauge(
            "relaybox_flows_oldest_wait_seconds",
            "Longest time for which a flow has waited; 0 if none waits.",
            ("flow",),
            registry=registry,
        )
        self._steps_failed = Counter(
            "relaybox_flows_steps_failed",
            "Failed attempts at the next step of a flow.",
            ("flow",),
            registry=registry,
        )
        self._expired = Counter(
            "relaybox_flows_expired",
            "Waits that ended because their time was over.",
            ("flow",),
            registry=registry,
        )
        for name in self._names.values():
            self._steps_failed.labels(name)
            self._expired.labels(name)

    def count_failure(self, name: str) -> None:
        """Count a failed attempt at a step of a flow called *name*."""
        self._steps_failed.labels(name).inc()

    def count_expired(self, name: str, waits: int) -> None:
        """Count *waits* of a flow called *name* that expired."""
        self._expired.labels(name).inc(waits)

    async def _measure(self) -> None:
        async with self._database.service_connection() as connection:
            rows = await connection.fetch(_SQL["measure_flows"], list(self._names), _COUNT_MAX)
        flows, oldest = Counts[tuple[str, str]](), Counts[str]()
        for row in rows:
            name = self._names[row["task_type"]]
            flows[name, row["state"]] += row["flows"]
            if row["state"] == "waiting":
                oldest[name] = max(oldest[name], row["oldest_s"])
        for name in self._names.values():
            self._oldest.labels(name).set(oldest[name])
            for state in _STATES:
                self._flows.labels(name, state).set(flows[name, state])
