"""One command at a time: the rows that it writes and those that it leaves unchanged."""

import json
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.commands import (
    AggregateNotFound,
    Command,
    CommandService,
    ConstraintViolated,
    DuplicateCommand,
    PayloadInvalid,
    StaleVersion,
    UnknownCommand,
)
from relaybox.db import Database
from relaybox.events import fetch_stream
from relaybox_types.envelope import EventEnvelope
from relaybox_types.rows import CommandInbox, EventOutbox

from tests.fixtures.counters import ADA, AGENT, BOB, TooMuch, counters, submit


@pytest.mark.guarantee("G01")
async def test_command_writes_inbox_events_outbox_and_snapshot(
    service: CommandService, counter_id: UUID, database: Database, superuser: asyncpg.Connection, written
) -> None:
    result = await submit(service, "Increase", counter_id, by=2, steps=2)

    inbox = CommandInbox.model_validate(
        await _row(superuser, "SELECT * FROM command_inbox WHERE id = $1", result.command_id)
    )
    assert (inbox.session_id, inbox.command_type, inbox.status) == (counter_id, "Increase", "COMPLETED")
    assert inbox.payload == {"by": 2, "steps": 2}
    async with database.connection() as connection:
        _, first, second = await fetch_stream(connection, "COUNTER", str(counter_id))
    assert (first.type, first.payload["by"], first.correlation_id) == (
        "Suite.Counter.Updated",
        2,
        result.command_id,
    )
    assert (second.version, second.causation_id) == (3, first.event_id)
    outbox = EventOutbox.model_validate(
        await _row(superuser, "SELECT * FROM event_outbox WHERE key = $1 AND seq = 2", str(counter_id))
    )
    envelope = EventEnvelope.model_validate(outbox.payload)
    assert (outbox.topic, outbox.status) == ("domain-events", "PENDING")
    assert (envelope.event_id, envelope.version) == (first.event_id, 2)
    assert envelope.metadata == first.metadata
    assert (await written(counter_id)).total == 4


async def _row(connection: asyncpg.Connection, query: str, *arguments: object) -> dict[str, object]:
    await connection.set_type_codec("jsonb", schema="pg_catalog", encoder=str, decoder=json.loads)
    return dict(await connection.fetchrow(query, *arguments))


async def test_pending_command_blocks_its_own_type_until_it_ends(
    service: CommandService, counter_id: UUID, written
) -> None:
    first = await submit(service, "RequestCount", counter_id)
    assert first.status == "RECEIVED"

    with pytest.raises(DuplicateCommand) as refused:
        await submit(service, "RequestCount", counter_id)
    assert refused.value.duplicate_command_id == first.command_id
    await submit(service, "Increase", counter_id)

    await submit(service, "ReportCount", counter_id, caller=AGENT, command_id=str(first.command_id), found=3)
    assert (await submit(service, "RequestCount", counter_id)).status == "RECEIVED"
    assert (await written(counter_id)).total == 4


@pytest.mark.parametrize(
    ("found", "command", "task"), [(3, "COMPLETED", "COMPLETED"), (None, "FAILED", "FAILED")]
)
async def test_settlement_ends_the_command_and_its_tasks_with_an_event(
    service: CommandService, counter_id: UUID, superuser: asyncpg.Connection, found, command: str, task: str
) -> None:
    pending = (await submit(service, "RequestCount", counter_id)).command_id
    await superuser.execute(
        "INSERT INTO async_tasks"
        " (task_type, triggered_by_command_id, status, progress, lease_until, lease_token) VALUES"
        " ('count', $1, 'RUNNING', 40, now(), gen_random_uuid()), ('count', $1, 'PENDING', 0, NULL, NULL),"
        " ('count', $1, 'CANCELLED', 10, NULL, NULL), ('other', gen_random_uuid(), 'PENDING', 0, NULL, NULL)",
        pending,
    )

    await submit(service, "ReportCount", counter_id, caller=AGENT, command_id=str(pending), found=found)

    row = await superuser.fetchrow("SELECT status, error_data FROM command_inbox WHERE id = $1", pending)
    assert row["status"] == command
    assert (row["error_data"] is None) == (found is not None)
    tasks = await superuser.fetch(
        "SELECT status, progress, lease_until, xmin FROM async_tasks ORDER BY created_at, id"
    )
    by_status = sorted((row["status"], int(row["progress"])) for row in tasks)
    ended = [(task, 100), (task, 100)] if found else [(task, 0), (task, 40)]
    assert by_status == sorted([("CANCELLED", 10), ("PENDING", 0), *ended])
    assert all(row["lease_until"] is None for row in tasks)
    same = await superuser.fetchval(
        "SELECT count(DISTINCT xmin::text) FROM ("
        "SELECT xmin FROM async_tasks WHERE status::text = $1 UNION ALL "
        "SELECT xmin FROM command_inbox WHERE id = $2 UNION ALL SELECT xmin FROM aggregate_snapshots)",
        task,
        pending,
    )
    assert same == 1


async def test_settlement_of_an_ended_command_changes_nothing(
    service: CommandService, counter_id: UUID, superuser: asyncpg.Connection
) -> None:
    pending = (await submit(service, "RequestCount", counter_id)).command_id
    await submit(service, "ReportCount", counter_id, caller=AGENT, command_id=str(pending), found=1)
    await submit(service, "ReportCount", counter_id, caller=AGENT, command_id=str(pending))
    assert await superuser.fetchval("SELECT status FROM command_inbox WHERE id = $1", pending) == "COMPLETED"


@pytest.mark.parametrize(
    ("command_type", "payload", "error"),
    [
        ("Increase", {"by": 0}, PayloadInvalid),
        ("Increase", {"by": 1_000}, TooMuch),
        ("Increase", {"extra": "a\x00b"}, PayloadInvalid),
        ("Increase", {"extra": float("inf")}, PayloadInvalid),
        ("ReportCount", {"command_id": str(uuid4())}, UnknownCommand),
    ],
)
async def test_refused_command_writes_nothing(
    service: CommandService, counter_id: UUID, written, command_type: str, payload, error: type[Exception]
) -> None:
    before = await written(counter_id)
    with pytest.raises(error):
        await submit(service, command_type, counter_id, **payload)
    assert await written(counter_id) == before


@pytest.mark.guarantee("G81")
async def test_counter_of_another_user_is_not_found(
    service: CommandService, counter_id: UUID, written
) -> None:
    missing = uuid4()
    answers = []
    for one in (counter_id, missing):
        with pytest.raises(AggregateNotFound) as refused:
            await submit(service, "NoSuchCommand", one, caller=BOB, by="bad")
        answers.append(str(refused.value).replace(str(one), "ID"))
    assert answers[0] == answers[1]
    assert (await written(counter_id)).version == 1


async def test_aggregate_of_another_domain_is_not_found(
    service: CommandService, counter_id: UUID, superuser: asyncpg.Connection
) -> None:
    await superuser.execute("UPDATE aggregate_snapshots SET aggregate_type = 'OTHER'")
    with pytest.raises(AggregateNotFound):
        await submit(service, "Increase", counter_id, caller=AGENT)


async def test_stale_expected_version_is_refused(service: CommandService, counter_id: UUID, written) -> None:
    def at(version: int) -> Command:
        return Command(
            aggregate_id=counter_id, command_type="Increase", payload={}, caller=ADA, expected_version=version
        )

    await service.submit(at(1), domain=counters)
    with pytest.raises(StaleVersion) as refused:
        await service.submit(at(1), domain=counters)
    assert refused.value.actual == 2
    assert (await written(counter_id)).version == 2


async def test_existing_id_is_refused_with_the_name_of_the_constraint(
    service: CommandService, counter_id: UUID, written
) -> None:
    taken = Command(
        aggregate_id=counter_id, command_type="CreateCounter", payload={"start": 9}, caller=BOB, creates=True
    )
    with pytest.raises(ConstraintViolated) as refused:
        await service.submit(taken, domain=counters)
    assert refused.value.constraint == "aggregate_snapshots_pkey"
    assert (await written(counter_id)).total == 0


async def test_snapshot_equals_the_folded_events(
    service: CommandService, counter_id: UUID, database: Database
) -> None:
    for by in (3, 4):
        await submit(service, "Increase", counter_id, by=by)
    view = await service.read(counters, counter_id, actor="ada")
    async with database.connection() as connection:
        events = await fetch_stream(connection, "COUNTER", str(counter_id))
    assert view.aggregate.total == sum(event.payload["by"] for event in events) == 7
    assert view.aggregate.version == events[-1].version
    assert not view.pending


async def test_only_the_owner_sees_pending_commands(service: CommandService, counter_id: UUID) -> None:
    pending = await submit(service, "RequestCount", counter_id)
    view = await service.read(counters, counter_id, actor="ada")
    assert view.pending == {"RequestCount": pending.command_id}
    assert view.aggregate.counting == pending.command_id
    with pytest.raises(AggregateNotFound):
        await service.read(counters, counter_id, actor="bob")


async def test_single_command_takes_two_statements(make_service, counter_id: UUID, superuser) -> None:
    service = make_service(pool_size=1)
    await submit(service, "Increase", counter_id)
    calls: list[str] = []
    batcher = service._batchers["Suite.Counter"]
    async with batcher._database.connection() as connection:
        connection.add_query_logger(lambda record: calls.append(record.query))
    await submit(service, "Increase", counter_id)
    assert len(calls) == 2
