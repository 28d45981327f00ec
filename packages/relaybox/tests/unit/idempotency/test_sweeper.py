"""What one run of the sweeper counts and logs; PostgreSQL is imitated."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import SecretStr
from relaybox.db import Database, Executor
from relaybox.idempotency import Sweeper, SweepResult, _sweep
from relaybox.idempotency._service import QUERIES
from relaybox.retention import RemovalCounts
from relaybox.settings import IdempotencySettings, PostgresSettings
from structlog.testing import capture_logs

NOTHING = RemovalCounts(commands=0, tasks=0, consumed_events=0, dead_letters=0, keys=0)
SWEPT_NOTHING = SweepResult(claims=0, slots=0, busy=False)


class Tables(Database):
    """A database in which the sweep is due; each query has no rows unless *rows* has some."""

    def __init__(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        super().__init__(PostgresSettings(port=1, password=SecretStr("unused")))
        self._rows = rows

    async def fetch(self, query: str, /, *args: Any) -> Sequence[Mapping[str, Any]]:
        if "relaybox.sweep" in args and len(args) == 2:
            return [{"claimed": True, "due_in_s": 60.0}]
        return self._rows.get(query, [])

    @asynccontextmanager
    async def connection(self) -> AsyncGenerator[Executor]:
        yield self

    @asynccontextmanager
    async def service_connection(self) -> AsyncGenerator[Executor]:
        yield self


async def run_once(
    monkeypatch: pytest.MonkeyPatch,
    *,
    swept: SweepResult = SWEPT_NOTHING,
    removed: RemovalCounts = NOTHING,
    standing: Mapping[str, Any],
) -> CollectorRegistry:
    registry = CollectorRegistry()
    sweeper = Sweeper(Tables({QUERIES["standing"]: [standing]}), registry, IdempotencySettings())

    async def sweep(*_: Any) -> SweepResult:
        return swept

    async def remove(*_: Any, should_continue: Any, **__: Any) -> RemovalCounts:
        assert should_continue()
        sweeper.stop()
        assert not should_continue()
        return removed

    monkeypatch.setattr(_sweep, "sweep", sweep)
    monkeypatch.setattr(_sweep, "remove_old_records", remove)
    await sweeper.run()
    return registry


@pytest.mark.parametrize(
    ("standing", "records", "lag_s"),
    [({"records": None, "lag_s": None}, 0, 0.0), ({"records": 7, "lag_s": 1.5}, 7, 1.5)],
)
async def test_sweeper_measures_responses_and_logs_nothing_if_none_expired(
    monkeypatch: pytest.MonkeyPatch, standing: Mapping[str, Any], records: int, lag_s: float
) -> None:
    with capture_logs() as lines:
        registry = await run_once(monkeypatch, standing=standing)
    assert lines == []
    assert registry.get_sample_value("relaybox_idempotency_records") == records
    assert registry.get_sample_value("relaybox_idempotency_expiry_lag_seconds") == lag_s


@pytest.mark.parametrize(
    "swept", [SweepResult(claims=2, slots=0, busy=False), SweepResult(claims=0, slots=1, busy=False)]
)
async def test_sweeper_logs_what_expired(monkeypatch: pytest.MonkeyPatch, swept: SweepResult) -> None:
    with capture_logs() as lines:
        await run_once(monkeypatch, swept=swept, standing={"records": 0, "lag_s": 0.0})
    assert [(line["claims"], line["slots"]) for line in lines] == [(swept.claims, swept.slots)]


async def test_sweeper_counts_removed_rows_by_table(monkeypatch: pytest.MonkeyPatch) -> None:
    removed = RemovalCounts(
        commands=1,
        tasks=2,
        consumed_events=3,
        dead_letters=4,
        flow_handles=5,
        flow_events=6,
        flow_event_keys=7,
        keys=8,
    )
    with capture_logs() as lines:
        registry = await run_once(monkeypatch, removed=removed, standing={"records": 0, "lag_s": 0.0})
    counts = {
        "command_inbox": 1,
        "async_tasks": 2,
        "consumed_events": 3,
        "dead_letters": 4,
        "flow_resume_handles": 5,
        "flow_events": 6,
        "flow_event_keys": 7,
        "idempotency_key": 8,
    }
    [line] = lines
    for table, count in counts.items():
        labels = {"table": table}
        assert registry.get_sample_value("relaybox_records_removed_total", labels) == line[table] == count
