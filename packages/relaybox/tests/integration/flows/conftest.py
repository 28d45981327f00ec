"""A task runner for flows, and a table for the effects of their steps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from relaybox.db import Database
from relaybox.flows import (
    FlowDefinition,
    flow_workers,
    park_flow,
)
from relaybox.settings import TaskSettings
from relaybox.tasks import TaskRunner

from tests.fixtures.flow_engine import Runner
from tests.fixtures.signal_recorder import SignalRecorder


@pytest.fixture
async def effects(database: Database, superuser: Any) -> None:
    await superuser.execute("CREATE TABLE effects (name TEXT)")
    await superuser.execute("GRANT ALL ON effects TO PUBLIC")


@pytest.fixture
def run_flows(database: Database) -> Runner:
    """``async with run_flows(definition) as signals``: run flows in a task runner."""

    @asynccontextmanager
    async def run(*definitions: FlowDefinition, **settings: Any) -> AsyncIterator[SignalRecorder]:
        signals = SignalRecorder()
        runner = TaskRunner(
            database,
            flow_workers(database, definitions),
            on_exhausted=lambda task: park_flow(database, task),
            settings=TaskSettings(**{"poll_s": 0.05, "stop_grace_s": 5.0, **settings}),
            on_signal=signals,
        )
        running = asyncio.create_task(runner.run())
        try:
            yield signals
        finally:
            runner.stop()
            await running

    return run
