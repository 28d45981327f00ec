"""The driver calls an external engine after each transition of a pause, until the call has succeeded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from relaybox.db import Database, executor_of
from relaybox.events import fetch_chain
from relaybox.flows import (
    EngineRun,
    FlowCancelled,
    FlowEngineUnavailable,
    FlowInvalid,
    FlowRunEnded,
    FlowRunRunning,
    Handle,
    cancel,
    confirm_paused,
    engine_workers,
    expire_handles,
    park_flow,
    pause_run,
    resume,
)
from relaybox.operations import cancel_open_task, list_other_pauses
from relaybox.settings import TaskSettings
from relaybox.tasks import run_due_tasks
from relaybox_types.enums import HandleStatus
from sqlalchemy.ext.asyncio import AsyncSession

from tests.unit.test_docs import fences

HOUR = timedelta(hours=1)
PAGE = Path(__file__).parents[5] / "docs/how-to/attach-an-engine.md"


@dataclass
class FakeEngine:
    """Records the calls; the next ones raise the errors in ``failures``."""

    name: str = "fake"
    calls: list[tuple[Any, ...]] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)

    async def suspend(self, run: EngineRun) -> None:
        self._record("suspend", run.run_id)

    async def resume(self, run: EngineRun, payload: Mapping[str, Any]) -> None:
        self._record("resume", run.run_id, dict(payload))

    async def cancel(self, run: EngineRun, *, reason: str) -> None:
        self._record("cancel", run.run_id, reason)

    def _record(self, *call: Any) -> None:
        self.calls.append(call)
        if self.failures:
            raise self.failures.pop(0)


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def run() -> EngineRun:
    run_id = str(uuid4())
    return EngineRun(engine="fake", run_id=run_id, correlation_id=f"{run_id}/approval")


@pytest.fixture
def drive(database: Database, engine: FakeEngine, superuser: Any) -> Callable[..., Any]:
    """``await drive()``: run the drivers that are due; those that wait for an engine count as due."""

    async def run_drivers() -> None:
        await superuser.execute(
            "UPDATE async_tasks SET not_before = now() WHERE not_before < now() + interval '30 s'"
        )
        await run_due_tasks(
            database,
            engine_workers(database, [engine]),
            on_exhausted=lambda task: park_flow(database, task),
            settings=TaskSettings(attempts_max=3),
        )

    return run_drivers


async def request(database: Database, run: EngineRun) -> HandleStatus:
    handle = await database.run_in_transaction(lambda db: pause_run(db, run, expires_in=HOUR))
    return handle.status


async def driver(database: Database) -> tuple[str, str | None]:
    """Return status and error code of the only driver."""
    async with database.connection() as connection:
        [row] = await connection.fetch(
            "SELECT status::text, error_data ->> 'error_code' AS code FROM async_tasks"
        )
    return row["status"], row["code"]


async def transitions(database: Database, run: EngineRun) -> list[str]:
    async with database.connection() as connection:
        events = await fetch_chain(connection, UUID(run.run_id))
    return [one.type.rpartition(".")[2] for one in events]


@pytest.mark.guarantee("G44")
async def test_run_is_suspended_then_resumed_with_the_payload(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any
) -> None:
    assert await request(database, run) is HandleStatus.PENDING_PAUSE
    await drive()
    assert engine.calls == [("suspend", run.run_id)]
    await database.run_in_transaction(lambda db: resume(db, run.correlation_id, {"yes": True}))
    await drive()
    await drive()
    assert engine.calls[1:] == [("resume", run.run_id, {"yes": True})]
    assert await driver(database) == ("COMPLETED", None)
    assert await transitions(database, run) == ["PauseRequested", "Paused", "Resumed"]


@pytest.mark.guarantee("G44")
async def test_resume_before_the_pause_reaches_the_engine(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any
) -> None:
    await database.run_in_transaction(lambda db: resume(db, run.correlation_id, {"early": 1}))
    assert await request(database, run) is HandleStatus.RESUMED
    await drive()
    assert engine.calls == [("resume", run.run_id, {"early": 1})]
    assert await request(database, run) is HandleStatus.RESUMED


async def test_resume_waits_until_the_run_is_suspended(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any
) -> None:
    await request(database, run)
    engine.failures = [FlowRunRunning("not yet") for _ in range(5)]
    for _ in range(5):
        await drive()
        await database.run_in_transaction(lambda db: request_again(db, run))
    await database.run_in_transaction(lambda db: resume(db, run.correlation_id, {}))
    await drive()
    assert [call[0] for call in engine.calls] == ["suspend"] * 6 + ["resume"]


async def request_again(db: Any, run: EngineRun) -> None:
    """Repeat the request, as a run does that was started again before it was suspended."""
    handle = await pause_run(db, run, expires_in=HOUR)
    assert handle.status is HandleStatus.PENDING_PAUSE


@pytest.mark.parametrize("how", ["expiry", "cancellation"])
async def test_ended_pause_cancels_its_run(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any, superuser: Any, how: str
) -> None:
    await request(database, run)
    await drive()
    if how == "expiry":
        await superuser.execute("UPDATE flow_resume_handles SET expires_at = now()")
        await database.run_in_transaction(expire_handles)
    else:
        await database.run_in_transaction(lambda db: cancel(db, run.correlation_id))
    await drive()
    word = "expired" if how == "expiry" else "cancelled"
    assert engine.calls[1:] == [("cancel", run.run_id, f"the pause {run.correlation_id} {word}")]
    assert await transitions(database, run) == ["PauseRequested", "Paused", word.capitalize()]


async def test_due_driver_records_the_expiry(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any, superuser: Any
) -> None:
    await request(database, run)
    await drive()
    await superuser.execute("UPDATE flow_resume_handles SET expires_at = now()")
    await superuser.execute("UPDATE async_tasks SET not_before = now()")
    await drive()
    assert engine.calls[-1][0] == "cancel"
    assert await transitions(database, run) == ["PauseRequested", "Paused", "Expired"]


async def test_unavailable_engine_is_called_until_it_responds(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any
) -> None:
    await request(database, run)
    await drive()
    await database.run_in_transaction(lambda db: resume(db, run.correlation_id, {}))
    engine.failures = [FlowEngineUnavailable("down") for _ in range(5)]
    for _ in range(5):
        await drive()
        assert await driver(database) == ("PENDING", None)
    await drive()
    assert [call[0] for call in engine.calls] == ["suspend"] + ["resume"] * 6
    assert await driver(database) == ("COMPLETED", None)


async def test_resume_of_an_ended_run_parks_the_driver(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any
) -> None:
    await request(database, run)
    await drive()
    await database.run_in_transaction(lambda db: resume(db, run.correlation_id, {}))
    engine.failures = [FlowRunEnded("fake", run.run_id, "Cancelled")]
    await drive()
    await drive()
    assert [call[0] for call in engine.calls] == ["suspend", "resume"]
    assert await driver(database) == ("FAILED", "FLOW_RUN_ENDED")


async def test_operators_see_pauses_of_engines(database: Database, run: EngineRun, drive: Any) -> None:
    await request(database, run)
    await drive()
    async with database.connection() as connection:
        found = await list_other_pauses(connection, pauses_max=10)
    assert [pause.correlation_id for pause in found] == [run.correlation_id]


async def test_engine_of_the_page_gives_a_message_to_its_run(database: Database) -> None:
    engine_text, request_text = list(fences(PAGE, "python"))[3:]
    names: dict[str, Any] = {}
    for text in (engine_text, request_text):
        exec(compile(text, "page", "exec", dont_inherit=True), names)
    engine = names["ListEngine"]()
    engine.runs["r-1"] = {}
    for run_id in ("r-1", "r-2"):
        await database.run_in_transaction(lambda db, run_id=run_id: names["await_payment"](db, run_id))
        await database.run_in_transaction(lambda db, run_id=run_id: resume(db, f"{run_id}/payment", {"c": 3}))
    workers = engine_workers(database, [engine])
    for _ in range(2):
        await run_due_tasks(database, workers, on_exhausted=lambda task: park_flow(database, task))
    assert engine.runs == {"r-1": {"r-1/payment": {"c": 3}}}
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT status::text, error_data ->> 'error_code' AS code FROM async_tasks ORDER BY created_at"
        )
    assert [tuple(row.values()) for row in rows] == [("COMPLETED", None), ("FAILED", "FLOW_RUN_UNKNOWN")]


@pytest.mark.parametrize("changes", [{"engine": ""}, {"engine": "e" * 41}, {"run_id": "r" * 201}])
async def test_run_without_engine_or_id_is_refused(database: Database, changes: dict[str, str]) -> None:
    run = EngineRun(**{"engine": "fake", "run_id": "1", "correlation_id": "c"} | changes)
    with pytest.raises(FlowInvalid, match="must have 1 to "):
        await request(database, run)


def test_engines_of_one_name_are_refused(database: Database) -> None:
    with pytest.raises(FlowInvalid, match="two engines have the name 'fake'"):
        engine_workers(database, [FakeEngine(), FakeEngine()])


async def test_pause_that_expires_while_it_is_confirmed_cancels_the_run(
    database: Database, engine: FakeEngine, run: EngineRun, drive: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def confirm_late(db: AsyncSession, correlation_id: str) -> Handle:
        await executor_of(db).fetch("UPDATE flow_resume_handles SET expires_at = now() - interval '1 s'")
        return await confirm_paused(db, correlation_id)

    await request(database, run)
    # The time between the statement that reads the pause and the one that confirms it is too short to meet.
    monkeypatch.setattr("relaybox.flows._external.confirm_paused", confirm_late)
    await drive()
    assert engine.calls == [
        ("suspend", run.run_id),
        ("cancel", run.run_id, f"the pause {run.correlation_id} expired"),
    ]
    assert await driver(database) == ("COMPLETED", None)
    assert await transitions(database, run) == ["PauseRequested", "Expired"]


async def test_cancelled_driver_ends_its_pause(database: Database, run: EngineRun, drive: Any) -> None:
    await request(database, run)
    await drive()
    async with database.connection() as connection:
        [driven] = await connection.fetch("SELECT id FROM async_tasks")
    await cancel_open_task(database, driven["id"], by="ann", reason="the run is gone")
    assert await driver(database) == ("CANCELLED", None)
    assert await transitions(database, run) == ["PauseRequested", "Paused", "Cancelled"]
    with pytest.raises(FlowCancelled):
        await database.run_in_transaction(lambda db: resume(db, run.correlation_id, {}))
