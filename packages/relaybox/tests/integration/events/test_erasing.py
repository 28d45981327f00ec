"""Erasing the content of events of some aggregates from every table."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from pydantic_core import from_json, to_json
from relaybox.commands import InboxCommand, append_events, metadata_of
from relaybox.db import Database, DatabaseError, Executor, executor_of
from relaybox.events import Erasure, EventBus, erase, fetch_stream
from relaybox.idempotency import IdempotencyService
from relaybox.outbox import save_to_outbox
from relaybox.tasks import create_task, fetch_task
from relaybox_types.enums import CommandStatus, TaskStatus
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.counters import ADA
from tests.fixtures.event_publishing import new_event
from tests.fixtures.gates import wait_for_row_lock_waiter
from tests.fixtures.task_rows import TASK_TYPE

SECRET = "1. e4 e5, my own analysis"
#: Columns that may have a text of the user; erased_at and the like cannot.
EVERYWHERE = """
    SELECT 'event' AS place FROM domain_events AS r WHERE r::text LIKE $1
    UNION ALL SELECT 'outbox' FROM event_outbox AS r WHERE r::text LIKE $1
    UNION ALL SELECT 'command' FROM command_inbox AS r WHERE r::text LIKE $1
    UNION ALL SELECT 'task' FROM async_tasks AS r WHERE r::text LIKE $1
    UNION ALL SELECT 'answer' FROM idempotency_cache AS r WHERE r::text LIKE $1
    UNION ALL SELECT 'body' FROM idempotency_bodies AS r WHERE position($2 IN body) > 0
    UNION ALL SELECT 'snapshot' FROM aggregate_snapshots AS r WHERE r::text LIKE $1
    UNION ALL SELECT 'letter' FROM dead_letters AS r WHERE r::text LIKE $1 OR position($2 IN value) > 0
    ORDER BY place
"""
#: A parked event in binary mode, and the same event in structured mode.
LETTER = """
    INSERT INTO dead_letters (consumer_group, topic, partition, message_offset, message_key, event_id,
        event_type, aggregate_type, aggregate_id, headers, value, reason, error_code, error, attempts,
        holds_key)
    SELECT 'group', 'topic', 0, coalesce(max(message_offset), 0) + 1, 'key', $1, $2, $3, $4, $5::text::jsonb,
        $6, 'HANDLER_FAILED', 'RuntimeError', $7, 4, true
    FROM dead_letters
"""


async def places(superuser: asyncpg.Connection) -> list[str]:
    """Return the tables and columns that contain the secret."""
    return [row["place"] for row in await superuser.fetch(EVERYWHERE, f"%{SECRET}%", SECRET.encode())]


async def erased(database: Database, *ids: UUID | str, aggregate_type: str = "COUNTER") -> Erasure:
    return await database.run_in_transaction(
        lambda db: erase(db, aggregate_type, ids, actor="ann", reason="purged"), isolation="READ COMMITTED"
    )


def a_fact(aggregate_id: UUID | str, version: int = 1, **changes: Any) -> EventEnvelope:
    return new_event(
        aggregate_id=str(aggregate_id),
        version=version,
        payload={"note": SECRET},
        metadata={**metadata_of(ADA, uuid4()), "note": SECRET},
        **changes,
    )


def a_command(aggregate_id: UUID, **changes: Any) -> InboxCommand:
    fields = {"command_id": uuid4(), "command_type": "ImportPgn", "aggregate_id": aggregate_id}
    return InboxCommand(**fields, payload={"pgn": SECRET}, key=SECRET, **changes)


async def fill(db: AsyncSession, aggregate_id: UUID) -> UUID:
    """Write a row with the secret into every table for an aggregate; return its open task."""
    pending = a_command(aggregate_id, status=CommandStatus.RECEIVED)
    await append_events(db, a_command(aggregate_id), [a_fact(aggregate_id)])
    await append_events(db, pending, [a_fact(aggregate_id, 2)])
    task = await create_task(
        executor_of(db),
        task_type=TASK_TYPE,
        command_id=pending.command_id,
        aggregate_id=aggregate_id,
        input_data={"pgn": SECRET},
    )
    await db.execute(
        text(
            "INSERT INTO aggregate_snapshots (id, aggregate_type, owner, state, version)"
            " VALUES (:id, 'COUNTER', 'ada', jsonb_build_object('note', CAST(:note AS text)), 2)"
        ),
        {"id": aggregate_id, "note": SECRET},
    )
    for key, body in (("short", SECRET), ("long", SECRET * 100)):
        result = {"status": 201, "fingerprint": "f", "body": body.encode(), "targets": [str(aggregate_id)]}
        assert await IdempotencyService(db).cache_idempotency_result(f"{key} {aggregate_id}", result)
    assert task is not None
    return task


@pytest.fixture
async def two(database: Database) -> tuple[UUID, UUID]:
    """Create two aggregates with rows in every table."""
    ids = uuid4(), uuid4()
    async with database.sessions() as db:
        for one in ids:
            await fill(db, one)
        await db.commit()
    return ids


async def test_erasure_removes_the_content_of_its_aggregates_only(
    database: Database, superuser: asyncpg.Connection, two: tuple[UUID, UUID]
) -> None:
    before = await places(superuser)
    done = await erased(database, two[0])
    assert (done.events, done.outbox_rows, done.commands, done.tasks, done.answers, done.snapshots) == (
        (2, 2, 2, 1, 2, 1)
    )
    assert before == sorted((await places(superuser)) * 2)
    assert set(before) == {"event", "outbox", "command", "task", "answer", "body", "snapshot"}
    await erased(database, two[1])
    assert await places(superuser) == []


async def park(db: Executor, event: EventEnvelope, value: bytes) -> None:
    await db.fetch(
        LETTER,
        event.event_id,
        event.event_type,
        event.aggregate_type,
        event.aggregate_id,
        to_json([["ce_type", event.event_type], ["note", SECRET]]).decode(),
        value,
        f"RuntimeError: {SECRET}",
    )


async def test_dead_letters_lose_the_content_of_their_events(
    database: Database, superuser: asyncpg.Connection
) -> None:
    event, other = a_fact("c-1", target_id="t-1"), a_fact("c-2")
    async with database.connection() as connection:
        for one in (event, other):
            await park(connection, one, one.model_dump_json().encode())
        structured = {"specversion": "1.0", "type": event.event_type, "data": event.model_dump(mode="json")}
        await park(connection, event, to_json(structured))
    done = await erased(database, "c-1")
    assert done.dead_letters == 2
    binary, kept, cloudevent = await superuser.fetch("SELECT * FROM dead_letters ORDER BY id")
    metadata = {name: value for name, value in event.metadata.items() if name != "note"}
    gone = {"payload": {"erased": True}, "metadata": metadata, "target_id": None}
    envelope = event.model_copy(update=gone)
    assert EventEnvelope.model_validate_json(binary["value"]) == envelope
    assert from_json(cloudevent["value"]) == structured | {"data": envelope.model_dump(mode="json")}
    assert binary["error"] == cloudevent["error"] == "the content of the event was erased"
    assert from_json(binary["headers"]) == [["ce_type", event.event_type]]
    assert (binary["status"], binary["error_code"]) == ("PARKED", "RuntimeError")
    assert kept["value"] == other.model_dump_json().encode()
    assert (await erased(database, "c-1")).dead_letters == 0
    assert await places(superuser) == ["letter"]


async def test_many_dead_letters_are_erased_in_small_steps(
    database: Database, superuser: asyncpg.Connection
) -> None:
    async with database.connection() as connection:
        for version in range(1, 46):
            event = a_fact("c-1", version)
            await park(connection, event, event.model_dump_json().encode())
    assert (await erased(database, "c-1")).dead_letters == 45
    assert await places(superuser) == []


async def test_erasure_takes_effect_if_the_transaction_commits(
    database: Database, superuser: asyncpg.Connection, two: tuple[UUID, UUID]
) -> None:
    before = await places(superuser)
    async with database.sessions() as db:
        await erase(db, "COUNTER", two, actor="ann", reason="purged")
        assert await places(superuser) == before
        await db.rollback()
    assert await places(superuser) == before
    assert await superuser.fetchval("SELECT count(*) FROM event_erasures") == 0


async def test_erased_events_stay_and_are_marked(database: Database, two: tuple[UUID, UUID]) -> None:
    await erased(database, two[0])
    async with database.connection() as connection:
        gone = await fetch_stream(connection, "COUNTER", str(two[0]))
        there = await fetch_stream(connection, "COUNTER", str(two[1]))
    assert [(one.version, one.type, one.erased) for one in gone] == [
        (1, "Suite.Counter.Created", True),
        (2, "Suite.Counter.Created", True),
    ]
    assert gone[0].metadata["user_id"] == "ada"
    assert "note" not in gone[0].metadata
    assert [one.erased for one in there] == [False, False]


async def test_erased_commands_lose_content_and_pending_ones_end(
    database: Database, superuser: asyncpg.Connection
) -> None:
    aggregate_id = uuid4()
    task_id = await database.run_in_transaction(lambda db: fill(db, aggregate_id))
    await erased(database, aggregate_id)
    rows = await superuser.fetch(
        "SELECT status, payload, error_data, idempotency_key FROM command_inbox ORDER BY status"
    )
    assert [tuple(row) for row in rows] == [("COMPLETED", None, None, None), ("FAILED", None, None, None)]
    async with database.connection() as connection:
        task = await fetch_task(connection, task_id)
    assert task is not None
    assert (task.status, task.input_data, task.lease_token) == (TaskStatus.CANCELLED, None, None)


async def test_task_that_refers_only_to_its_command_is_erased(database: Database) -> None:
    command = a_command(uuid4(), status=CommandStatus.RECEIVED)

    async def take(db: AsyncSession) -> UUID | None:
        await append_events(db, command, [])
        input_data = {"pgn": SECRET}
        return await create_task(
            executor_of(db),
            task_type=TASK_TYPE,
            command_id=command.command_id,
            aggregate_id=None,
            input_data=input_data,
        )

    task_id = await database.run_in_transaction(take)
    assert task_id is not None
    assert (await erased(database, command.aggregate_id)).tasks == 1
    async with database.connection() as connection:
        task = await fetch_task(connection, task_id)
    assert task is not None
    assert (task.status, task.input_data) == (TaskStatus.CANCELLED, None)


@pytest.mark.parametrize(
    "state",
    [
        "status = 'PENDING'",
        "status = 'PENDING', next_attempt_at = now() + '1 h'",
        "status = 'FAILED', error_data = '{}'",
        "status = 'FAILED', error_data = '{}', skipped_at = now()",
        "status = 'SENT', sent_at = now()",
        "slot = 2",
        "slot = 3, status = 'SENT', sent_at = now()",
    ],
)
async def test_outbox_row_is_erased_in_every_status_and_slot(
    database: Database, superuser: asyncpg.Connection, state: str
) -> None:
    event = a_fact("c-1", causation_id=uuid4(), actor_id="ada", target_id="t-1")
    await database.run_in_transaction(lambda db: EventBus(db).publish(event))
    await superuser.execute(f"UPDATE event_outbox SET {state}")
    before = dict(await superuser.fetchrow("SELECT * FROM event_outbox"))

    assert (await erased(database, "c-1")).outbox_rows == 1

    after = dict(await superuser.fetchrow("SELECT * FROM event_outbox"))
    envelope = EventEnvelope.model_validate_json(after.pop("payload"))
    kept = {name: value for name, value in event.metadata.items() if name != "note"}
    # The target may be a person; domain_events does not store it.
    gone = {"payload": {"erased": True}, "metadata": kept, "target_id": None}
    assert envelope == event.model_copy(update=gone)
    del before["payload"]
    assert after == before


async def test_pending_row_with_a_key_other_than_its_aggregate_is_erased(
    database: Database, superuser: asyncpg.Connection
) -> None:
    event = a_fact("c-1")
    await database.run_in_transaction(lambda db: save_to_outbox("domain-events", "k", event.model_dump(), db))
    assert (await erased(database, "c-1")).outbox_rows == 1
    assert await places(superuser) == []


async def test_same_id_of_another_type_is_not_erased(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await database.run_in_transaction(lambda db: EventBus(db).publish(a_fact("c-1")))
    done = await erased(database, "c-1", aggregate_type="OTHER")
    assert (done.events, done.outbox_rows) == (0, 0)
    assert await places(superuser) == ["event", "outbox"]


async def test_repeated_erasure_finds_nothing_and_is_recorded(
    database: Database, superuser: asyncpg.Connection, two: tuple[UUID, UUID]
) -> None:
    first, again = await erased(database, *two), await erased(database, *two)
    assert (first.events, again) == (4, Erasure(commands=4, tasks=2))
    rows = await superuser.fetch("SELECT events FROM event_erasures ORDER BY id")
    assert [row["events"] for row in rows] == [4, 0]


async def test_aggregates_are_erased_in_steps_of_100(
    database: Database, superuser: asyncpg.Connection
) -> None:
    facts = [a_fact(f"c-{number}") for number in range(101)]
    await database.run_in_transaction(lambda db: append_events(db, None, facts))
    done = await erased(database, *(fact.aggregate_id for fact in facts))
    assert (done.events, done.outbox_rows) == (101, 101)
    assert await places(superuser) == []
    rows = await superuser.fetch("SELECT cardinality(aggregate_ids) AS ids FROM event_erasures ORDER BY id")
    assert [row["ids"] for row in rows] == [100, 1]


async def test_relays_wait_only_for_the_last_step_of_an_erasure(
    database: Database, superuser: asyncpg.Connection, two: tuple[UUID, UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relaybox.events._erase._AGGREGATES_MAX", 1)
    async with superuser.transaction():
        await superuser.execute("SELECT FROM command_inbox WHERE session_id = $1 FOR UPDATE", max(two))
        erasing = asyncio.create_task(erased(database, *two))
        await wait_for_row_lock_waiter(superuser)
        assert len(await superuser.fetch("SELECT FROM event_outbox FOR UPDATE SKIP LOCKED")) == 4
    assert (await erasing).outbox_rows == 4


@pytest.mark.parametrize("pieces", ["_AGGREGATES_MAX", "_ROWS_MAX"])
async def test_erasure_locks_outbox_rows_in_the_order_of_relays(
    database: Database, superuser: asyncpg.Connection, pieces: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"relaybox.events._erase.{pieces}", 1)
    for one in ("c-2", "c-3", "c-1"):
        await database.run_in_transaction(lambda db, one=one: EventBus(db).publish(a_fact(one)))
    # Rows are ordered by slot, then by number.
    await superuser.execute("UPDATE event_outbox SET slot = 3 WHERE key LIKE '%c-2'")
    async with superuser.transaction():
        await superuser.execute("SELECT FROM event_outbox WHERE key LIKE '%c-3' FOR UPDATE")
        erasing = asyncio.create_task(erased(database, "c-1", "c-2", "c-3"))
        await wait_for_row_lock_waiter(superuser)
        assert len(await superuser.fetch("SELECT FROM event_outbox FOR UPDATE SKIP LOCKED")) == 3
    assert (await erasing).outbox_rows == 3
    assert await places(superuser) == []


async def test_aggregate_can_record_events_after_its_erasure(database: Database, superuser) -> None:
    """The event about the erasure is recorded after it, and keeps its content."""

    async def purge(db: AsyncSession) -> None:
        await erase(db, "COUNTER", ["c-1"], actor="ann", reason="purged")
        await append_events(db, None, [new_event(version=2, payload={"mode": "purge"})])

    await database.run_in_transaction(lambda db: EventBus(db).publish(a_fact("c-1")))
    await database.run_in_transaction(purge, isolation="READ COMMITTED")
    async with database.connection() as connection:
        assert [one.payload for one in await fetch_stream(connection, "COUNTER", "c-1")] == [
            {"erased": True},
            {"mode": "purge"},
        ]
    sent = await superuser.fetch("SELECT payload -> 'payload' AS payload FROM event_outbox ORDER BY seq")
    assert [from_json(row["payload"]) for row in sent] == [{"erased": True}, {"mode": "purge"}]


async def test_row_that_a_relay_marks_concurrently_is_erased_and_sent(
    database: Database, superuser: asyncpg.Connection
) -> None:
    """The relay has marked the row and not yet committed when the erasure reaches it: both take effect."""
    await database.run_in_transaction(lambda db: EventBus(db).publish(a_fact("c-1")))
    async with superuser.transaction():
        await superuser.execute("UPDATE event_outbox SET status = 'SENT', sent_at = now()")
        erasing = asyncio.create_task(erased(database, "c-1"))
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        async with asyncio.timeout(WAIT_S), database.connection() as other:
            while not (await other.fetch(waiting))[0]["count"]:
                pass
    assert (await erasing).outbox_rows == 1
    row = await superuser.fetchrow("SELECT status, payload -> 'payload' AS payload FROM event_outbox")
    assert tuple(row) == ("SENT", '{"erased": true}')


@pytest.mark.parametrize(
    ("wrong", "named"), [({"ids": []}, "aggregate_ids"), ({"actor": "", "reason": ""}, "actor, reason")]
)
async def test_record_of_an_erasure_has_its_actor_reason_and_aggregates(
    database: Database, wrong: dict[str, Any], named: str
) -> None:
    fields = {"ids": ["c-1"], "actor": "ann", "reason": "purged", **wrong}
    ids = fields.pop("ids")
    async with database.sessions() as db:
        with pytest.raises(ValueError, match=f"got no {named}; pass at least one aggregate id"):
            await erase(db, "COUNTER", ids, **fields)


async def test_lock_timeout_of_an_erasure_is_reported(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await database.run_in_transaction(lambda db: EventBus(db).publish(a_fact("c-1")))
    async with superuser.transaction(), database.sessions() as db:
        await superuser.execute("SELECT FROM event_outbox FOR UPDATE")
        await db.execute(text("SET LOCAL lock_timeout = '50ms'"))
        with pytest.raises(DatabaseError):
            await erase(db, "COUNTER", ["c-1"], actor="ann", reason="purged")
