"""The recorder: its bound, and what it reports while PostgreSQL is unavailable."""

import asyncio
from uuid import UUID

import pytest
from pydantic import SecretStr
from relaybox.db import Database
from relaybox.relay import _background
from relaybox.relay._background import Recorder
from relaybox.relay._batches import Outcome
from relaybox.relay._messages import Message
from relaybox.relay._postgres import Connections
from relaybox.relay._statistics import Counters
from relaybox.settings import PostgresSettings
from structlog.testing import capture_logs

from tests.fixtures.bounds import WAIT_S

ATTRIBUTES = ("1", "T", None, None, None, None, None, None)
ROWS_MAX = 10_000


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def recorder(counters: Counters) -> Recorder:
    """A recorder without a server."""
    database = Database(PostgresSettings(port=1, password=SecretStr("unused")))
    return Recorder(
        Connections(database),
        counters,
        lambda _signal: None,
        on_settled=lambda _batch: None,
        on_change=lambda: None,
    )


def sent(*seqs: int, key: str | None = None) -> Outcome:
    return Outcome(
        sent=[Message(seq, 3, 1, "t", key, 0, b"{}", ATTRIBUTES, "binary", UUID(int=seq)) for seq in seqs]
    )


@pytest.mark.parametrize(("count", "waits"), [(ROWS_MAX, False), (ROWS_MAX + 1, True)])
async def test_recorder_with_over_10000_unrecorded_rows_has_no_room(
    recorder: Recorder, count: int, waits: bool
) -> None:
    recorder.add(None, sent(*range(count)))
    waiting = asyncio.create_task(recorder.wait_for_room())
    await asyncio.sleep(0)
    assert waiting.done() is not waits
    waiting.cancel()


async def test_recorder_warns_once_and_pauses_longer_without_postgresql(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures: list[int] = []
    third = asyncio.Event()

    def no_pause(count: int) -> float:
        failures.append(count)
        if count == 3:
            third.set()
        return 0.0

    monkeypatch.setattr(_background, "link_pause_s", no_pause)
    with capture_logs() as lines:
        running = asyncio.create_task(recorder.run())
        async with asyncio.timeout(WAIT_S):
            await third.wait()
        running.cancel()
    assert failures[:3] == [1, 2, 3]
    assert [(line["log_level"], line["error_code"]) for line in lines] == [
        ("warning", "DATABASE_UNAVAILABLE")
    ]


@pytest.mark.guarantee("G21")
async def test_published_batches_and_rows_out_of_order_are_counted(
    recorder: Recorder, counters: Counters
) -> None:
    recorder.add(None, Outcome())
    with capture_logs() as lines:
        recorder.add(None, sent(1, 3, 2, key="a"))
    assert (sum(counters.batch_counts), counters.batch_rows_sum) == (1, 3)
    assert (counters.order_violations_total, counters.late_total) == (1, 0)
    assert [(line["log_level"], line["seq"], line["lane"]) for line in lines] == [("error", 2, 3)]
