"""The commands of the page for dead letters resolve them, with a running consumer."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction
from relaybox.db import Database
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.doc_sections import run_section
from tests.fixtures.events import effects, make_effects_table, make_event, publish, record_effect
from tests.fixtures.letters import consuming, letter_statuses
from tests.fixtures.signal_recorder import SignalRecorder

PAGE = Path(__file__).parents[2] / "docs/how-to/dead-letters.md"
#: The letter and the group in the commands of the page.
LETTER = 4711
GROUP = "projection"
Section = Callable[[str], Awaitable[list[str]]]


class Handler:
    """A handler that fails for the first version of an aggregate until it is repaired."""

    def __init__(self) -> None:
        self.repaired = False
        self.events = [make_event(aggregate_id="a", version=version) for version in (1, 2)]

    async def __call__(self, event: EventEnvelope, unit: EventTransaction) -> None:
        if event.version == 1 and not self.repaired:
            raise ValueError("no such session")
        await record_effect(event, unit)


@pytest.fixture
def section(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str) -> Section:
    """Run the commands of a section of the page."""

    async def run(heading: str) -> list[str]:
        return await run_section(PAGE, heading, postgres_settings, kafka_settings, topic)

    return run


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def parked(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    superuser: asyncpg.Connection,
    handler: Handler,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[SignalRecorder]:
    """Run a consumer that has just parked the letter of the page and another one behind it."""
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    await make_effects_table(postgres_settings)
    await superuser.execute(f"SELECT setval(pg_get_serial_sequence('dead_letters', 'id'), {LETTER - 1})")
    async with consuming(database, kafka_settings, topic, GROUP, handler) as signals:
        publish(kafka_settings, topic, handler.events)
        await signals.wait_for(ConsumerSignal.PARKED, 2)
        yield signals


async def test_dead_letters_page_replays_a_key(
    database: Database, parked: SignalRecorder, handler: Handler, section: Section
) -> None:
    status, every, causes, shown = await section("1. See what happened")
    assert GROUP in status
    assert ("BLOCKED" in every, "BLOCKED" in causes) == (True, False)
    assert "ValueError: no such session" in shown
    handler.repaired = True
    preview, requested, _ = await section("3. Replay")
    assert "dry run: 1 would be requested for replay" in preview
    assert requested == "1 requested for replay\n"
    await parked.wait_for(ConsumerSignal.REPLAYED, 2)
    assert await effects(database) == [event.event_id for event in handler.events]
    assert await letter_statuses(database) == ["REPLAYED", "REPLAYED"]
    [acts] = await section("5. Check the record")
    assert "handler repaired, INC-17" in acts


async def test_dead_letters_page_discards_a_letter(
    database: Database, parked: SignalRecorder, handler: Handler, section: Section
) -> None:
    preview, discarded = await section("4. Or discard")
    assert "dry run: 1 would be discarded" in preview
    assert discarded == "1 discarded\nkeys that continue with the letter behind: 1\n"
    await parked.wait_for(ConsumerSignal.REPLAYED)
    assert await effects(database) == [handler.events[1].event_id]
    assert await letter_statuses(database) == ["DISCARDED", "REPLAYED"]
