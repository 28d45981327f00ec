"""The commands of the page for dead letters resolve them, with a running consumer."""

import json
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from relaybox.consumers import ConsumerSignal, EventTransaction
from relaybox.db import Database
from relaybox.kafka import partition_of
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.doc_sections import run_section
from tests.fixtures.events import effects, make_effects_table, make_event, publish, record_effect
from tests.fixtures.exiting_process import EXIT_CODE
from tests.fixtures.letters import consuming, letter_rows, letter_statuses
from tests.fixtures.processes import python_process, server_environment
from tests.fixtures.signal_recorder import SignalRecorder
from tests.fixtures.waiting import eventually

PAGE = Path(__file__).parents[2] / "docs/how-to/dead-letters.md"
#: The letter and the group in the commands of the page.
LETTER = 4711
GROUP = "projection"
#: Partition and offset in the command that parks a message.
PARTITION, OFFSET, PARTITIONS = 0, 2, 4
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
    assert discarded == "1 discarded\nkeys whose next letter will be replayed: 1\n"
    await parked.wait_for(ConsumerSignal.REPLAYED)
    assert await effects(database) == [handler.events[1].event_id]
    assert await letter_statuses(database) == ["DISCARDED", "REPLAYED"]


def key_of_partition(partition: int) -> str:
    """Return a new key whose messages are in *partition*."""
    while partition_of(key := str(uuid4()), PARTITIONS) != partition:
        pass
    return key


@pytest.mark.guarantee("G41")
async def test_dead_letters_page_parks_a_message_that_ends_the_process(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    section: Section,
) -> None:
    await make_effects_table(postgres_settings)
    good = [make_event(aggregate_id=key_of_partition(PARTITION)) for _ in range(OFFSET + 1)]
    key = key_of_partition(PARTITION)
    fatal = [make_event(aggregate_id=key, version=version) for version in (1, 2)]
    publish(kafka_settings, topic, [*good[:OFFSET], *fatal, *good[OFFSET:]])
    environment = server_environment(postgres_settings, kafka_settings)
    module, arguments = "tests.fixtures.exiting_process", (GROUP, topic, key)
    for _ in range(2):
        async with python_process(module, *arguments, environment=environment) as process:
            lines = await process.remaining_lines()
            assert await process.exit_code() == EXIT_CODE
        [*_, last] = [json.loads(line) for line in lines if '"handler called"' in line]
        assert (last["topic"], last["partition"], last["offset"]) == (topic, PARTITION, OFFSET)

    preview, requested = await section("A message that ends the process")
    assert "dry run: this message would be parked" in preview
    assert "requested; a consumer of the group parks it" in requested
    async with python_process(module, *arguments, environment=environment) as process:

        async def finished() -> bool:
            return len(await letter_rows(database)) == 2 and len(await effects(database)) == len(good)

        await eventually("the group has finished every message", finished)
        process.signal(signal.SIGTERM)
        assert await process.exit_code() == 0
    assert await effects(database) == [event.event_id for event in good]
    letters = [(row["event_id"], row["error_code"]) for row in await letter_rows(database)]
    assert letters == [(fatal[0].event_id, "PARKED_BY_OPERATOR"), (fatal[1].event_id, "KEY_BLOCKED")]
    repaired = Handler()
    repaired.repaired = True
    async with consuming(database, kafka_settings, topic, GROUP, repaired) as signals:
        await section("3. Replay")
        await signals.wait_for(ConsumerSignal.REPLAYED, 2)
    assert (await effects(database))[-2:] == [event.event_id for event in fatal]
