"""Metrics of flows, measured on a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Never

import pytest
from prometheus_client import CollectorRegistry
from relaybox.db import Database
from relaybox.flows import Flow, FlowMetrics, flow, flow_workers
from relaybox.tasks import WorkerAborted, run_due_tasks
from relaybox.testing import Tasks

from tests.fixtures.flow_runs import fail_flow, order_flow, run_flows, sleep_flow, start
from tests.fixtures.waiting import eventually


class Metrics:
    """The metrics of a service that runs two flows."""

    def __init__(self, database: Database) -> None:
        self.registry = CollectorRegistry()
        self.job = FlowMetrics(database, [order_flow, sleep_flow], self.registry)

    def value(self, name: str, flow: str = "Test.Order", **labels: str) -> float | None:
        return self.registry.get_sample_value(f"relaybox_flows{name}", {"flow": flow, **labels})

    async def until(self, wanted: dict[str, float], flow: str = "Test.Order") -> None:
        async def measured() -> bool:
            return {state: self.value("", flow, state=state) for state in wanted} == wanted

        await eventually(f"{flow} is measured as {wanted}", measured)


@pytest.fixture
async def metrics(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Metrics]:
    monkeypatch.setattr("relaybox.flows._metrics._MEASURE_S", 0.05)
    metrics = Metrics(database)
    running = asyncio.create_task(metrics.job.run())
    yield metrics
    metrics.job.stop()
    await running


async def test_flows_are_counted_by_name_and_state(database: Database, metrics: Metrics) -> None:
    flow_id = await start(database, order_flow)
    await start(database, sleep_flow)
    await metrics.until({"waiting": 0, "running": 1, "failed": 0})
    await run_flows(database)
    await metrics.until({"waiting": 1, "running": 0, "failed": 0})
    await metrics.until({"waiting": 1, "running": 0, "failed": 0}, "Test.Sleep")
    assert (metrics.value("_oldest_wait_seconds") or 0) > 0
    await fail_flow(database, flow_id)
    await metrics.until({"waiting": 0, "running": 0, "failed": 1})
    assert metrics.value("_oldest_wait_seconds") == 0


async def test_failed_steps_and_expired_waits_are_counted(database: Database, metrics: Metrics) -> None:
    assert (metrics.value("_steps_failed_total"), metrics.value("_expired_total")) == (0, 0)
    flow_id = await start(database, order_flow)
    await run_flows(database, metrics=metrics.job)
    await fail_flow(database, flow_id, metrics=metrics.job)
    assert (metrics.value("_steps_failed_total"), metrics.value("_expired_total")) == (1, 0)
    await start(database, order_flow)
    await run_flows(database, metrics=metrics.job)
    await Tasks(database).advance(timedelta(hours=2).total_seconds())
    await run_flows(database, metrics=metrics.job)
    assert metrics.value("_expired_total") == 1
    assert metrics.value("_expired_total", "Test.Sleep") == 0


async def test_step_that_aborts_is_counted(database: Database, metrics: Metrics) -> None:
    async def abort(_: Any) -> None:
        raise SystemExit

    @flow("Test.Order")
    async def aborting_flow(current: Flow, _arguments: dict[str, Any]) -> dict[str, Any]:
        await current.step("abort", abort)
        return {}

    async def refuse(_: Any) -> Never:
        raise AssertionError("the flow has another attempt")

    await start(database, aborting_flow)
    workers = flow_workers(database, [aborting_flow], metrics=metrics.job)
    [attempt] = await run_due_tasks(database, workers, on_exhausted=refuse)
    assert isinstance(attempt.failure, WorkerAborted)
    assert metrics.value("_steps_failed_total") == 1
