"""When a relay starts over, and how long it waits at its end; the servers are imitated."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.relay import Relay, _postgres, _relay
from relaybox.relay._errors import HistoryChanged
from relaybox.relay._lanes import Lanes
from relaybox.relay._postgres import Connections, LowWatermark
from relaybox.relay._publish_loop import PublishLoop
from relaybox.relay._relay import Session
from relaybox.relay._statistics import Counters, RelaySignal
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings

#: What a relay has after SIGTERM for acknowledgements.
ACKNOWLEDGEMENTS_S = 5.0


@pytest.fixture
def database() -> Database:
    return Database(PostgresSettings(port=1, password=SecretStr("unused")))


@pytest.mark.guarantee("G35")
async def test_relay_pauses_before_it_starts_over_in_another_history(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals: list[RelaySignal] = []
    pauses: list[float] = []

    async def run(_session: Session, _stopping: asyncio.Event) -> None:
        raise ExceptionGroup("", [HistoryChanged("another server")])

    async def pause(stopping: asyncio.Event, seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 2:
            stopping.set()

    monkeypatch.setattr(Session, "run", run)
    monkeypatch.setattr(_relay, "wait_at_most", pause)
    await Relay(database, KafkaSettings(port=1), RelaySettings(), on_signal=signals.append).run()
    assert pauses == [0.5, 0.5]
    assert signals == [RelaySignal.HISTORY_CHANGED, RelaySignal.HISTORY_CHANGED, RelaySignal.STOPPED]


@pytest.mark.guarantee("G35")
async def test_server_in_another_history_is_rejected_with_both_names(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    histories = ["7/1", "7/1", "7/2"]

    @asynccontextmanager
    async def connected(_database: Database) -> AsyncGenerator[None]:
        yield

    async def fetch_rows(*_: Any) -> list[dict[str, object]]:
        history = histories.pop(0)
        return [{"history": history, "history_id": UUID(int=int(history[-1]))}]

    monkeypatch.setattr(_postgres, "connected", connected)
    monkeypatch.setattr(_postgres, "fetch_rows", fetch_rows)
    connections = Connections(database)
    for _ in range(2):
        async with connections.connected():
            assert connections.history_id == UUID(int=1)
    with pytest.raises(HistoryChanged, match=r"was in history 7/1 \(.*\) and now is in 7/2:"):
        async with connections.connected():
            pass


@pytest.mark.guarantee("G27")
async def test_stopped_loop_waits_for_acknowledgements_for_five_seconds(database: Database) -> None:
    deadlines: list[float] = []
    delivery: Any = SimpleNamespace(set_deadline=deadlines.append, note_recorded=None)
    heartbeat: Any = SimpleNamespace(work_available=asyncio.Event(), low_watermark=LowWatermark())
    loop = PublishLoop(
        Connections(database),
        delivery,
        RelaySettings(),
        Lanes(lease_s=10),
        heartbeat,
        Counters(),
        lambda _signal: None,
    )
    before_s = time.monotonic()
    loop.stop()
    [deadline_s] = deadlines
    assert before_s <= deadline_s - ACKNOWLEDGEMENTS_S <= time.monotonic()
    assert heartbeat.work_available.is_set()
