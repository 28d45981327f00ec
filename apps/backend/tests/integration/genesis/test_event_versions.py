"""`Genesis.Session.Created` in versions 1 and 2: all readers get version 2, whatever was recorded."""

from contextlib import aclosing
from typing import Any
from uuid import UUID, uuid4

import pytest
from backend.genesis import SessionProjection, genesis
from backend.genesis._events import CREATED
from backend.rebuilding import DifferenceKind, rebuild
from pydantic_core import from_json
from relaybox.commands import Command, CommandService
from relaybox.db import Database
from relaybox.events import EventBus, EventVersionUnknown, fetch_chain, fetch_stream
from relaybox.http._live import LiveStreams
from relaybox.outbox import Notifier
from relaybox_types.envelope import EventEnvelope, build_event_envelope

from tests.fixtures.event_publishing import insert_event
from tests.fixtures.story import WRITER

TYPES = genesis.event_types
Json = dict[str, Any]


@pytest.fixture
def service(database: Database) -> CommandService:
    return CommandService(database, [genesis], notifier=Notifier(database), source_service="suite")


async def send(service: CommandService, session_id: UUID, command_type: str) -> int:
    command = Command(
        aggregate_id=session_id,
        command_type=command_type,
        payload={},
        caller=WRITER,
        creates=command_type == "CreateSession",
    )
    return (await service.submit(command, domain=genesis)).version


async def record_version_1(database: Database) -> UUID:
    """Record the creation of a session as the release with version 1 did; its row is missing."""
    session_id = uuid4()
    event = build_event_envelope(
        event_type=CREATED.name,
        event_version=1,
        aggregate_type=genesis.aggregate_type,
        aggregate_id=str(session_id),
        version=1,
        correlation_id=uuid4(),
        payload={"session_id": str(session_id), "user_id": WRITER.actor, "novel_id": None},
        metadata={"user_id": WRITER.actor},
        actor_id=WRITER.actor,
    )
    await database.run_in_transaction(lambda db: EventBus(db).publish(event))
    return session_id


@pytest.fixture
async def sessions(database: Database, service: CommandService) -> tuple[UUID, UUID]:
    """A session recorded with version 1 of the event, without a row, and one with version 2."""
    first, second = await record_version_1(database), uuid4()
    await send(service, second, "CreateSession")
    return first, second


async def published(database: Database, session_id: UUID) -> EventEnvelope:
    """Return the first event of the session as it is published to Kafka."""
    async with database.connection() as connection:
        rows = await connection.fetch(
            "SELECT payload::text FROM event_outbox WHERE key = $1 ORDER BY seq LIMIT 1", str(session_id)
        )
    return EventEnvelope.model_validate_json(rows[0]["payload"])


async def streamed(database: Database, session_id: UUID) -> Json:
    """Return the payload of the first event of the session on its live stream."""
    stream = LiveStreams(database).follow(
        genesis.aggregate_type, session_id, after_version=0, current_version=1, event_types=TYPES
    )
    async with aclosing(stream):
        _retry, event = [await anext(stream) for _ in range(2)]
    return from_json(event.data)["payload"]


async def test_all_readers_get_version_2_of_a_created_session(
    database: Database, sessions: tuple[UUID, UUID]
) -> None:
    for recorded_version, session_id in enumerate(sessions, start=1):
        message = await published(database, session_id)
        async with database.connection() as connection:
            stream = await fetch_stream(
                connection, genesis.aggregate_type, str(session_id), event_types=TYPES
            )
            chain = await fetch_chain(connection, message.correlation_id, event_types=TYPES)
            [stored] = await fetch_stream(connection, genesis.aggregate_type, str(session_id))
        consumed = TYPES.upcast_envelope(message)
        newest = {
            "session_id": str(session_id),
            "user_id": WRITER.actor,
            "novel_id": None,
            "current_stage": "CONCEPT_SELECTION",
        }
        read = [stream[0].payload, chain[0].payload, await streamed(database, session_id), consumed.payload]
        assert read == [newest] * 4
        assert stream[0].event_version == chain[0].event_version == consumed.event_version == 2
        assert (stored.event_version, message.event_version) == (recorded_version, recorded_version)
        assert stored.payload == message.payload
        assert ("current_stage" in stored.payload) == (recorded_version == 2)


async def test_rebuild_restores_a_session_of_version_1_and_commands_go_on(
    database: Database, service: CommandService, sessions: tuple[UUID, UUID]
) -> None:
    found: list[tuple[UUID, DifferenceKind]] = []
    report = await rebuild(
        database,
        SessionProjection(),
        write=True,
        on_difference=lambda one: found.append((one.aggregate_id, one.kind)),
    )
    assert (report.aggregates, report.repaired) == (2, 1)
    assert found == [(sessions[0], DifferenceKind.MISSING)]
    views = [await service.read(genesis, one, actor=WRITER.actor) for one in sessions]
    first, second = (view.aggregate for view in views)
    assert first.model_copy(update={"id": second.id}) == second
    assert await send(service, sessions[0], "RequestConceptGeneration") == 2


async def test_rebuild_refuses_an_unknown_newer_version_and_changes_nothing(
    database: Database, service: CommandService, sessions: tuple[UUID, UUID]
) -> None:
    await insert_event(
        database,
        event_type="Genesis.Session.Updated",
        event_version=2,
        aggregate_type=genesis.aggregate_type,
        aggregate_id=str(sessions[1]),
        version=2,
        payload={"status": "ABANDONED", "reason": "secret"},
    )
    with pytest.raises(EventVersionUnknown, match="Updated has version 2, but this release") as refused:
        await rebuild(database, SessionProjection(), write=True, on_difference=lambda _: None)
    assert "secret" not in str(refused.value)
    assert (await service.read(genesis, sessions[1], actor=WRITER.actor)).aggregate.version == 1
