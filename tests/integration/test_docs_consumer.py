"""The consumer of the page "Write a consumer" runs on real servers, as documented."""

import asyncio
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from relaybox.consumers import Consumer, ConsumerSignal
from relaybox.db import Database, Migrations
from relaybox.settings import KafkaSettings

from tests.fixtures.bank import BANK
from tests.fixtures.bounds import WAIT_S
from tests.fixtures.doc_files import blocks_of
from tests.fixtures.event_publishing import new_event
from tests.fixtures.events import publish
from tests.fixtures.signal_recorder import SignalRecorder

PAGE = Path(__file__).parents[2] / "docs/how-to/write-a-consumer.md"


@pytest.fixture(scope="session")
def migrations() -> tuple[Migrations, ...]:
    return runpy.run_path(str(BANK / "tables.py"))["MIGRATIONS"]


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Yield the names of the program on the page, which imports modules of the bank."""
    [block] = [block for block in blocks_of(PAGE) if block.language == "python" and block.file is None]
    monkeypatch.syspath_prepend(BANK)
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(block.text, "page", "exec", dont_inherit=True), names)
    yield names
    for module in BANK.glob("*.py"):
        sys.modules.pop(module.stem, None)


async def test_consumer_of_the_page_counts_each_event_once(
    program: dict[str, Any], database: Database, kafka_settings: KafkaSettings, topic: str
) -> None:
    ann, bob = str(uuid4()), str(uuid4())
    opened = [
        new_event(event_type="Bank.Account.Opened", aggregate_id=account, payload={"owner": owner})
        for account, owner in ((ann, "ann"), (bob, "bob"))
    ]
    deposited, sent = (
        new_event(event_type=f"Bank.Account.{name}", aggregate_id=ann, payload={"cents": cents})
        for name, cents in (("MoneyDeposited", 1_000), ("MoneySent", 700))
    )
    signals = SignalRecorder()
    handlers = [program["update_balance"]]
    consumer = Consumer(database, kafka_settings, handlers, topics=[topic], on_signal=signals)
    work = asyncio.create_task(consumer.run())
    publish(kafka_settings, topic, [*opened, deposited, sent, deposited])
    await signals.wait_for(ConsumerSignal.ALREADY_DONE)
    await signals.wait_for(ConsumerSignal.COMMITTED, 4)
    consumer.stop()
    await asyncio.wait_for(work, WAIT_S)
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT owner, balance FROM balances ORDER BY owner")
    assert [tuple(row.values()) for row in rows] == [("ann", 300), ("bob", 0)]
