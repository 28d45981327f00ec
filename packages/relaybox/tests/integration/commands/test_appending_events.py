"""A command decided by the application, written with its events in the application's transaction."""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.commands import (
    ConstraintViolated,
    DuplicateCommand,
    InboxCommand,
    PayloadInvalid,
    VersionGap,
    append_events,
    metadata_of,
    settle_command,
)
from relaybox.db import Database, Isolation, RetryTransaction, executor_of
from relaybox.events import EventBus, fetch_stream
from relaybox.outbox import EventIncomplete, MessageTooLarge, Notifier, TopicUndeclared
from relaybox.outbox import _append as append
from relaybox_types.enums import CommandStatus
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from tests.fixtures.counters import ADA
from tests.fixtures.event_publishing import new_event, row_counts

ISOLATIONS: tuple[Isolation, ...] = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


@pytest.fixture(autouse=True)
def _fresh_limits() -> Iterator[None]:
    append.outbox_settings.cache_clear()
    yield
    append.outbox_settings.cache_clear()


def a_command(aggregate_id: UUID | None = None, **changes: Any) -> InboxCommand:
    fields: dict[str, Any] = {
        "command_id": uuid4(),
        "command_type": "MoveNode",
        "aggregate_id": aggregate_id or uuid4(),
        "payload": {"to": "b"},
    }
    return InboxCommand(**(fields | changes))


async def recorded(
    database: Database,
    command: InboxCommand | None,
    events: Sequence[EventEnvelope],
    isolation: Isolation = "READ COMMITTED",
    **options: Any,
) -> None:
    """Record once, in a separate transaction."""
    await database.run_in_transaction(
        lambda db: append_events(db, command, events, **options), isolation=isolation, attempts_max=1
    )


async def everything(superuser: asyncpg.Connection) -> tuple[int, int, int]:
    """Return the numbers of rows in the inbox, of events, and in the outbox."""
    row = await superuser.fetchrow(
        "SELECT (SELECT count(*) FROM command_inbox), (SELECT count(*) FROM domain_events),"
        " (SELECT count(*) FROM event_outbox)"
    )
    return tuple(row)


@pytest.mark.guarantee("G01")
@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_command_and_events_of_several_aggregates_commit_together(
    database: Database, superuser: asyncpg.Connection, isolation: Isolation
) -> None:
    command = a_command(key="the client's")
    metadata = metadata_of(ADA, command.command_id)
    events = [
        new_event(aggregate_id=one, version=version, metadata=metadata, correlation_id=command.command_id)
        for one, version in (("a", 1), ("b", 1), ("a", 2))
    ]
    async with database.sessions() as db:
        await db.connection(execution_options={"isolation_level": isolation})
        await append_events(db, command, events)
        assert await everything(superuser) == (0, 0, 0)
        await db.commit()

    row = dict(await superuser.fetchrow("SELECT * FROM command_inbox"))
    assert row.pop("created_at")
    assert row == {
        "id": command.command_id,
        "session_id": command.aggregate_id,
        "command_type": "MoveNode",
        "idempotency_key": "the client's",
        "payload": '{"to": "b"}',
        "status": "COMPLETED",
        "error_data": None,
    }
    async with database.connection() as connection:
        stream = await fetch_stream(connection, "COUNTER", "a")
        sent = await connection.fetch("SELECT key, topic, payload::text FROM event_outbox ORDER BY seq")
    assert [(one.event_id, one.version, one.metadata) for one in stream] == [
        (events[0].event_id, 1, metadata),
        (events[2].event_id, 2, metadata),
    ]
    assert [(row["key"], EventEnvelope.model_validate_json(row["payload"])) for row in sent] == [
        (event.aggregate_id, event) for event in events
    ]


@pytest.mark.guarantee("G01")
async def test_nothing_is_written_if_the_caller_rolls_back(
    database: Database, superuser: asyncpg.Connection
) -> None:
    async with database.sessions() as db:
        await append_events(db, a_command(), [new_event()])
        await db.rollback()
    assert await everything(superuser) == (0, 0, 0)


async def test_each_1000_events_take_one_round_trip(
    database: Database, superuser: asyncpg.Connection
) -> None:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        statements.append(statement)

    sqlalchemy_event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    async with database.sessions() as db:
        await append_events(db, a_command(), [new_event(version=n) for n in range(1, 1_001)])
        assert len(statements) == 1
        await append_events(db, a_command(), [new_event(version=n) for n in range(1_001, 2_002)])
        assert len(statements) == 3
        await db.commit()
    assert await everything(superuser) == (2, 2_001, 2_001)


async def test_time_of_an_event_is_that_of_the_transaction(database: Database) -> None:
    async with database.sessions() as db:
        now = await db.scalar(text("SELECT now()"))
        await append_events(db, a_command(), [new_event()])
        [event] = await fetch_stream(executor_of(db), "COUNTER", "c-1")
    assert event.created_at == now


async def test_worker_appends_events_of_a_recorded_command(
    database: Database, superuser: asyncpg.Connection
) -> None:
    command = a_command(status=CommandStatus.RECEIVED)
    await recorded(database, command, [])
    await recorded(database, None, [new_event()])
    assert await everything(superuser) == (1, 1, 1)


async def test_completed_command_without_events_is_refused(database: Database) -> None:
    for nothing in (a_command(), None):
        with pytest.raises(ValueError, match="no events"):
            await recorded(database, nothing, [])


@pytest.mark.guarantee("G03")
@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_second_pending_command_of_its_type_is_a_duplicate(
    database: Database, superuser: asyncpg.Connection, isolation: Isolation
) -> None:
    first = a_command(status=CommandStatus.RECEIVED)
    await recorded(database, first, [new_event()])
    again = a_command(first.aggregate_id, status=CommandStatus.RECEIVED)
    with pytest.raises(DuplicateCommand) as refused:
        await recorded(database, again, [new_event(version=2)], isolation)
    assert refused.value.duplicate_command_id == first.command_id
    assert await everything(superuser) == (1, 1, 1)


async def test_completed_command_may_follow_a_pending_one(database: Database, superuser) -> None:
    first = a_command(status=CommandStatus.RECEIVED)
    await recorded(database, first, [])
    await recorded(database, a_command(first.aggregate_id), [new_event()])
    other = a_command(first.aggregate_id, status=CommandStatus.RECEIVED, command_type="ImportPgn")
    await recorded(database, other, [])
    assert await everything(superuser) == (3, 1, 1)


@pytest.mark.guarantee("G03")
async def test_transaction_with_an_old_snapshot_retries_and_sees_the_pending(
    database: Database,
) -> None:
    first = a_command(status=CommandStatus.RECEIVED)
    attempts: list[int] = []

    async def late(db: AsyncSession) -> None:
        await db.execute(text("SELECT 1"))
        if not attempts:
            await recorded(database, first, [])
        attempts.append(1)
        await append_events(db, a_command(first.aggregate_id, status=CommandStatus.RECEIVED), [])

    with pytest.raises(DuplicateCommand) as refused:
        await database.run_in_transaction(late)
    assert refused.value.duplicate_command_id == first.command_id
    assert len(attempts) == 2


@pytest.mark.guarantee("G04")
@pytest.mark.parametrize("isolation", ISOLATIONS)
async def test_existing_version_is_a_lost_race(
    database: Database, superuser: asyncpg.Connection, isolation: Isolation
) -> None:
    await recorded(database, a_command(), [new_event(), new_event(version=2)])
    for version in (1, 2):
        with pytest.raises(RetryTransaction, match="domain_events_aggregate_version_key"):
            await recorded(database, a_command(), [new_event(version=version)], isolation)
    assert await everything(superuser) == (1, 2, 2)


async def test_gap_in_versions_is_refused_and_nothing_is_written(
    database: Database, superuser: asyncpg.Connection
) -> None:
    await recorded(database, None, [new_event()])
    async with database.sessions() as db:
        with pytest.raises(VersionGap, match="version 3 of COUNTER 'c-1' does not follow"):
            await append_events(db, a_command(), [new_event(aggregate_id="new"), new_event(version=3)])
        await db.commit()
    assert await everything(superuser) == (0, 1, 1)


async def test_error_names_an_id_that_exists(database: Database) -> None:
    command, event = a_command(), new_event()
    await recorded(database, command, [event])
    with pytest.raises(ConstraintViolated, match="domain_events_event_id_key"):
        await recorded(database, a_command(), [event.model_copy(update={"version": 2})])
    with pytest.raises(ConstraintViolated, match="command_inbox_pkey"):
        await recorded(database, command, [new_event(version=2)])


@pytest.mark.parametrize(
    ("event", "refusal"),
    [
        (new_event(payload={"note": "nul\0"}), EventIncomplete),
        (new_event(payload={"note": object()}), EventIncomplete),
        (new_event(event_type="Suite.Counter.\x07Created"), EventIncomplete),
        (new_event(payload={"note": "x" * 1_000_000}), MessageTooLarge),
    ],
)
async def test_event_that_no_relay_could_publish_is_refused_before_writing(
    database: Database, superuser: asyncpg.Connection, event: EventEnvelope, refusal: type[Exception]
) -> None:
    async with database.sessions() as db:
        with pytest.raises(refusal):
            await append_events(db, a_command(), [new_event(aggregate_id="good"), event])
        await db.commit()
    assert await everything(superuser) == (0, 0, 0)


async def test_topic_must_be_declared_and_routes_apply(
    database: Database, superuser: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(TopicUndeclared, match="elsewhere"):
        await recorded(database, a_command(), [new_event()], topic="elsewhere")
    append.outbox_settings.cache_clear()
    monkeypatch.setenv("OUTBOX_TOPICS", "domain-events,elsewhere")
    monkeypatch.setenv("OUTBOX_ROUTES", "Suite=elsewhere")
    await recorded(database, a_command(), [new_event()])
    assert await superuser.fetchval("SELECT topic FROM event_outbox") == "elsewhere"


@pytest.mark.parametrize("payload", [{"n": "\0"}, {"n": object()}])
async def test_payload_that_cannot_be_stored_is_refused(
    database: Database, superuser: asyncpg.Connection, payload: dict[str, Any]
) -> None:
    with pytest.raises(PayloadInvalid, match="MoveNode"):
        await recorded(database, a_command(payload=payload), [new_event()])
    assert await everything(superuser) == (0, 0, 0)


class _Told(Notifier):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.told: list[str] = []

    def notify(self, keys: Any) -> None:
        self.told += keys


async def test_relays_are_notified_once_per_aggregate_after_the_commit(database: Database) -> None:
    notifier = _Told(database)
    notifier.attach(database.sessions)
    events = [new_event(aggregate_id=one, version=v) for one in ("a", "b") for v in (1, 2)]
    async with database.sessions() as db:
        await append_events(db, a_command(), events)
        assert notifier.told == []
        await db.commit()
    assert sorted(notifier.told) == ["a", "b"]


@pytest.mark.guarantee("G06")
@pytest.mark.parametrize(
    ("status", "error"),
    [(CommandStatus.COMPLETED, None), (CommandStatus.FAILED, {"error_code": "PGN_INVALID"})],
)
async def test_worker_can_end_a_command_only_once(
    database: Database, superuser: asyncpg.Connection, status: CommandStatus, error: Any
) -> None:
    command = a_command(status=CommandStatus.RECEIVED)
    await recorded(database, command, [])
    async with database.sessions() as db:
        assert await settle_command(executor_of(db), command.command_id, status, error)
        assert not await settle_command(executor_of(db), command.command_id, CommandStatus.FAILED)
        await db.commit()
    row = await superuser.fetchrow("SELECT status, error_data FROM command_inbox")
    assert tuple(row) == (status, error and '{"error_code": "PGN_INVALID"}')
    await recorded(database, a_command(command.aggregate_id, status=CommandStatus.RECEIVED), [])


async def test_published_and_appended_events_share_one_stream(database: Database) -> None:
    await recorded(database, a_command(), [new_event()])
    await database.run_in_transaction(lambda db: EventBus(db).publish(new_event(version=2)))
    await recorded(database, a_command(), [new_event(version=3)])
    assert await row_counts(database) == (3, 3)
