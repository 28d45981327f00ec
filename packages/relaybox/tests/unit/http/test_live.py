"""The poll that finds changes with a lost notification continues after any error."""

import asyncio

import pytest
from relaybox.db import Database
from relaybox.events import EventTypes
from relaybox.http import _live
from relaybox.settings import PostgresSettings
from structlog.testing import capture_logs


class Broken(Database):
    """Raise an unexpected error, and signal the next call after it."""

    def __init__(self) -> None:
        super().__init__(PostgresSettings(host="nowhere.invalid"))
        self.asked = 0
        self.asked_again = asyncio.Event()

    def connection(self):
        self.asked += 1
        if self.asked > 1:
            self.asked_again.set()
        raise ZeroDivisionError("a mistake of ours")


@pytest.mark.guarantee("G84")
async def test_unexpected_poll_failure_is_logged_and_repeated(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_live, "_POLL_S", 0.0)
    database = Broken()
    streams = _live.LiveStreams(database)
    streams._subscribers["a shop"] = {
        _live._Subscriber("Shop", "a shop", frozenset({"a shop"}), _live._show_all, EventTypes())
    }
    with capture_logs() as lines:
        polling = asyncio.create_task(streams._poll())
        again = asyncio.create_task(database.asked_again.wait())
        await asyncio.wait({polling, again}, return_when=asyncio.FIRST_COMPLETED)
    polling.cancel()
    again.cancel()
    await asyncio.gather(polling, again, return_exceptions=True)
    assert database.asked_again.is_set()
    assert {(line["event"], line["log_level"]) for line in lines} == {
        ("poll for live streams failed; trying again", "error")
    }
