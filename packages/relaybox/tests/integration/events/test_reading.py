"""Reading recorded events: streams, chains, and all streams of a type in pages."""

from dataclasses import replace
from uuid import UUID, uuid4

import pytest
from relaybox.commands import CommandService
from relaybox.db import Database
from relaybox.events import _read, fetch_chain, fetch_recent, fetch_stream, iterate_streams
from relaybox.outbox import Notifier

from tests.fixtures.counters import ADA, AGENT, counters, submit


@pytest.fixture
def service(database: Database) -> CommandService:
    return CommandService(database, [counters], notifier=Notifier(database), source_service="suite")


async def a_counter(service: CommandService, steps: int) -> UUID:
    one = (await submit(service, "CreateCounter")).aggregate_id
    await submit(service, "Increase", one, steps=steps)
    return one


async def test_stream_begins_after_a_version_and_ends_at_a_limit(
    database: Database, service: CommandService
) -> None:
    one, _other = await a_counter(service, 5), await a_counter(service, 2)
    async with database.connection() as connection:
        part = await fetch_stream(connection, "COUNTER", str(one), after_version=2, limit=3)
        end = await fetch_stream(connection, "COUNTER", str(one), after_version=6)
        foreign = await fetch_stream(connection, "OTHER", str(one))
    assert [event.version for event in part] == [3, 4, 5]
    assert {event.aggregate_id for event in part} == {str(one)}
    assert (end, foreign) == ([], [])


async def test_newest_events_are_listed_first_and_paged(database: Database, service: CommandService) -> None:
    one, _other = await a_counter(service, 4), await a_counter(service, 2)
    async with database.connection() as connection:
        page = await fetch_recent(connection, "COUNTER", str(one), limit=2)
        rest = await fetch_recent(connection, "COUNTER", str(one), before_version=page[-1].version)
    assert [event.version for event in page] == [5, 4]
    assert [event.version for event in rest] == [3, 2, 1]
    assert {event.aggregate_id for event in page + rest} == {str(one)}


@pytest.mark.guarantee("G08")
async def test_chain_has_all_events_of_one_command_causes_first(
    database: Database, service: CommandService
) -> None:
    one = await a_counter(service, 1)
    first = await submit(service, "RequestCount", one)
    async with database.connection() as connection:
        (cause,) = await fetch_chain(connection, first.command_id)
        agent = replace(AGENT, correlation_id=first.command_id, causation_id=cause.event_id)
        await submit(service, "ReportCount", one, caller=agent, command_id=str(first.command_id), found=2)
        await submit(service, "Increase", one, caller=ADA)
        chain = await fetch_chain(connection, first.command_id)
        nothing = await fetch_chain(connection, uuid4())
    assert [event.type.rpartition(".")[2] for event in chain] == ["CountRequested", "CountCompleted"]
    assert [event.causation_id for event in chain] == [None, cause.event_id]
    assert {event.correlation_id for event in chain} == {first.command_id}
    assert nothing == []


@pytest.mark.parametrize("page_rows", [1, 3, 1_000])
async def test_all_streams_are_read_completely_with_any_page_size(
    database: Database, service: CommandService, monkeypatch: pytest.MonkeyPatch, page_rows: int
) -> None:
    lengths = {str(await a_counter(service, steps)): steps + 1 for steps in (1, 2, 5)}
    monkeypatch.setattr(_read, "_PAGE_ROWS", page_rows)
    async with database.connection() as connection:
        events = [event async for event in iterate_streams(connection, "COUNTER")]
    read = [(event.aggregate_id, event.version) for event in events]
    assert read == sorted((one, version) for one, end in lengths.items() for version in range(1, end + 1))
