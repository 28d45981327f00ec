"""A task runner whose signals a test can wait for."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from relaybox.db import Database
from relaybox.settings import TaskSettings
from relaybox.tasks import Task, TaskRunner, Worker

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.task_rows import TASK_TYPE


class Running:
    """A running task runner and its signals."""

    def __init__(self, runner: TaskRunner, signals: SignalRecorder, work: asyncio.Task[None]) -> None:
        self.runner, self.signals, self.work = runner, signals, work

    async def ended(self) -> None:
        await asyncio.wait_for(asyncio.shield(self.work), WAIT_S)


StartRunner = Callable[..., AbstractAsyncContextManager[Running]]


async def never(task: Task) -> None:
    raise AssertionError(f"task {task.id} was handed over as exhausted")


@pytest.fixture
def start_runner(database: Database) -> StartRunner:
    """``async with start_runner(worker, lease_s=…) as running``; stops it at the end."""

    @asynccontextmanager
    async def start(
        worker: Worker,
        *,
        on_exhausted: Callable[[Task], Awaitable[None]] = never,
        on_progress: Any = None,
        listens: bool = False,
        **settings: Any,
    ) -> AsyncIterator[Running]:
        signals = SignalRecorder()
        runner = TaskRunner(
            database,
            {TASK_TYPE: worker},
            on_exhausted=on_exhausted,
            settings=TaskSettings(**{"poll_s": 0.05, "stop_grace_s": 0.0, **settings}),
            listens=listens,
            on_progress=on_progress,
            on_signal=signals,
        )
        running = Running(runner, signals, asyncio.create_task(runner.run()))
        try:
            yield running
        finally:
            runner.stop()
            await running.ended()

    return start
