"""Log lines of maintenance tasks that fail."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from relaybox.db import Database, Executor
from relaybox.outbox import RetentionStep
from relaybox.relay import _background
from relaybox.relay._background import Maintenance
from relaybox.relay._postgres import Connections, LowWatermark
from relaybox.relay._statistics import Counters
from relaybox.settings import PostgresSettings
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.waiting import eventually

#: Old rows are looked for every 0.07 ms.
KEEP_H = 1e-6


class Broken(Database):
    """A database whose connections raise an error that PostgreSQL never raises."""

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Executor]:
        raise RuntimeError("broken on purpose")
        yield


class Idle(Database):
    """A database whose connections are not used."""

    def __init__(self) -> None:
        super().__init__(PostgresSettings(port=1, password=SecretStr("unused")))

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Executor]:
        unused: Any = None
        yield unused


async def first_failure(database: Database) -> EventDict:
    counters = Counters()
    maintenance = Maintenance(
        database, Connections(database), counters, LowWatermark(), keep_h=KEEP_H, measure_s=1.0
    )

    async def failed() -> bool:
        return counters.maintenance_failures_total > 0

    with capture_logs() as lines:
        running = asyncio.create_task(maintenance.remove_old_rows())
        await eventually("the first failure", failed)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    await database.close()
    return lines[0]


async def test_unexpected_failure_of_maintenance_is_logged_with_its_traceback() -> None:
    line = await first_failure(Broken())
    assert (line["log_level"], line["task"]) == ("error", "retention")
    assert "RuntimeError: broken on purpose" in line["traceback"]


@pytest.mark.parametrize(
    ("steps", "level"),
    [([RetentionStep.CLOSED], "debug"), ([RetentionStep.SEALED, RetentionStep.EMPTIED], "info"), ([], None)],
)
async def test_only_the_removal_of_rows_is_logged_as_information(
    monkeypatch: pytest.MonkeyPatch, steps: list[RetentionStep], level: str | None
) -> None:
    attempts, repeated = [steps], asyncio.Event()

    async def retain(_connection: Executor, *, keep_h: float) -> list[RetentionStep]:
        assert keep_h == KEEP_H
        if attempts:
            return attempts.pop()
        repeated.set()
        return await asyncio.Future[list[RetentionStep]]()

    async def run_now(
        _database: Database, _name: str, _interval_s: float, action: Callable[[], Awaitable[object]]
    ) -> float:
        await action()
        return 0.0

    monkeypatch.setattr(_background, "retain", retain)
    monkeypatch.setattr(_background, "run_if_due", run_now)
    database = Idle()
    maintenance = Maintenance(
        database, Connections(database), Counters(), LowWatermark(), keep_h=KEEP_H, measure_s=1.0
    )
    with capture_logs() as lines:
        running = asyncio.create_task(maintenance.remove_old_rows())
        async with asyncio.timeout(WAIT_S):
            await repeated.wait()
        running.cancel()
    assert [(line["log_level"], line["steps"]) for line in lines] == ([(level, steps)] if level else [])


async def test_maintenance_without_postgresql_is_logged_with_the_reason() -> None:
    line = await first_failure(Database(PostgresSettings(port=1, password=SecretStr("unused"))))
    assert (line["log_level"], line["error_code"]) == ("warning", "DATABASE_UNAVAILABLE")
    assert line["reason"]
