"""A periodic job repeats its action until it is stopped."""

import asyncio

import pytest
import structlog
from relaybox.db import DatabaseUnavailable
from relaybox.periodic import PeriodicJob


class Action:
    """Fail with *error*, if there is one, and count the runs."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.runs: asyncio.Queue[None] = asyncio.Queue()

    async def __call__(self) -> None:
        self.runs.put_nowait(None)
        if self.error is not None:
            raise self.error


async def test_job_runs_at_once_and_repeats_until_stopped() -> None:
    action = Action()
    job = PeriodicJob(action, name="test", interval_s=1e-6)
    running = asyncio.create_task(job.run())
    for _ in range(3):
        await action.runs.get()
    job.stop()
    await running
    assert job.stopping


async def test_job_that_waits_for_its_interval_stops_at_once() -> None:
    action = Action()
    job = PeriodicJob(action, name="test", interval_s=3_600)
    running = asyncio.create_task(job.run())
    await action.runs.get()
    job.stop()
    await running
    assert action.runs.empty()


@pytest.mark.parametrize(
    ("error", "level"), [(DatabaseUnavailable("no server"), "warning"), (ValueError("no row"), "error")]
)
async def test_job_repeats_and_logs_after_an_error(error: Exception, level: str) -> None:
    action = Action(error)
    job = PeriodicJob(action, name="test", interval_s=1e-6)
    with structlog.testing.capture_logs() as logged:
        running = asyncio.create_task(job.run())
        for _ in range(2):
            await action.runs.get()
        job.stop()
        await running
    assert {(entry["log_level"], entry["job"]) for entry in logged} == {(level, "test")}
