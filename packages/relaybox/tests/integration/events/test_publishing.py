"""An event is published once: a repetition returns the recorded event."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.events import EventBus, EventIdReused, RecordedEvent, event_uuid, fetch_stream
from relaybox.outbox import EventIncomplete, MessageTooLarge, Notifier, TopicUndeclared
from relaybox.outbox import _append as append
from relaybox_types.envelope import EventEnvelope
from sqlalchemy import text

from tests.fixtures.event_publishing import new_event, publish_event, row_counts


@pytest.fixture(autouse=True)
def _fresh_limits() -> Iterator[None]:
    append.outbox_settings.cache_clear()
    yield
    append.outbox_settings.cache_clear()


async def test_event_is_recorded_and_in_the_outbox_as_given(database: Database) -> None:
    cause = uuid4()
    event = new_event(
        causation_id=cause, metadata={"source_service": "suite"}, event_version=2, actor_id="me"
    )
    recorded = await database.run_in_transaction(lambda db: EventBus(db).publish(event))

    assert recorded == RecordedEvent(
        event_id=event.event_id,
        correlation_id=event.correlation_id,
        causation_id=cause,
        type="Suite.Counter.Created",
        event_version=2,
        aggregate_type="COUNTER",
        aggregate_id="c-1",
        version=1,
        payload=event.payload,
        metadata={"source_service": "suite"},
        created_at=recorded.created_at,
    )
    async with database.connection() as connection:
        assert await fetch_stream(connection, "COUNTER", "c-1") == [recorded]
        [row] = await connection.fetch("SELECT topic, key, payload::text, status::text FROM event_outbox")
    assert (row["topic"], row["key"], row["status"]) == ("domain-events", "c-1", "PENDING")
    assert EventEnvelope.model_validate_json(row["payload"]) == event


async def test_repeated_id_returns_the_recorded_event_and_writes_nothing(
    database: Database, superuser: asyncpg.Connection
) -> None:
    first = await publish_event(database, "evt_123")
    numbers = "SELECT array_agg(last_value ORDER BY sequencename) FROM pg_sequences"
    used = await superuser.fetchval(numbers)
    async with database.sessions() as db:
        for _ in range(3):
            assert await EventBus(db).publish(new_event(), "evt_123") == first
        assert await db.scalar(text("SELECT pg_current_xact_id_if_assigned()")) is None
        await db.commit()
    assert await row_counts(database) == (1, 1)
    assert await superuser.fetchval(numbers) == used


async def test_repeated_id_in_one_transaction_is_recorded_once(database: Database) -> None:
    async with database.sessions() as db:
        first = await EventBus(db).publish(new_event(), "evt_123")
        assert await EventBus(db).publish(new_event(), "evt_123") == first
        await db.commit()
    assert await row_counts(database) == (1, 1)


async def test_id_that_is_no_uuid_is_mapped_also_as_a_cause(database: Database) -> None:
    first = await publish_event(database, "evt_123")
    assert (
        first.event_id
        == event_uuid("evt_123")
        == (await publish_event(database, event_uuid("evt_123"))).event_id
    )
    second = await publish_event(database, "evt_124", "order-7", "evt_123", version=2)
    assert second.causation_id == first.event_id
    assert second.correlation_id == event_uuid("order-7")


async def test_repeated_envelope_is_recognised_by_its_own_id(database: Database) -> None:
    event = new_event()
    async with database.sessions() as db:
        assert await EventBus(db).publish(event) == await EventBus(db).publish(event, str(event.event_id))
        await db.commit()
    assert await row_counts(database) == (1, 1)


async def test_generated_fields_are_not_compared(database: Database) -> None:
    first = await publish_event(database, "evt_123")
    later = datetime.now(UTC) + timedelta(hours=1)
    for changes in (
        {"timestamp": later},
        {"metadata": {"request_id": "r-2"}},
        {"version": 2},
        {"causation_id": uuid4()},
        {"actor_id": "me", "target_id": "other"},
        {"payload": {"price": {"of": "EUR", "amount": 1.0}, "steps": [1.0, 2.50, None], "题": "科幻"}},
    ):
        assert await publish_event(database, "evt_123", **changes) == first
    assert await row_counts(database) == (1, 1)


CHAIN, CAUSE = UUID(int=2), UUID(int=3)


@pytest.mark.parametrize(
    ("given", "changes", "differs", "says"),
    [
        (
            (),
            {"event_type": "Suite.Counter.Updated"},
            "event_type",
            "'Suite.Counter.Created', not 'Suite.Cou",
        ),
        ((), {"event_version": 2}, "event_version", "event_version is '1', not '2'"),
        ((), {"aggregate_type": "NODE"}, "aggregate_type", "'COUNTER', not 'NODE'"),
        ((), {"aggregate_id": "c-2"}, "aggregate_id", "'c-1', not 'c-2'"),
        (
            (),
            {"payload": {"secret": "swordfish"}},
            "payload",
            "the payload differs from the recorded payload",
        ),
        ((), {"payload": {}}, "payload", "the payload differs from the recorded payload"),
        ((UUID(int=1),), {}, "correlation_id", f"'{CHAIN}', not '{UUID(int=1)}'"),
        ((CHAIN, "evt_9"), {}, "causation_id", f"'{CAUSE}', not '{event_uuid('evt_9')}'"),
    ],
)
async def test_error_for_different_content_names_the_difference(
    database: Database, given: tuple[Any, ...], changes: dict[str, Any], differs: str, says: str
) -> None:
    first = await publish_event(database, "evt_123", CHAIN, CAUSE)
    async with database.sessions() as db:
        with pytest.raises(EventIdReused) as refused:
            await EventBus(db).publish(new_event(**changes), "evt_123", *given)
        assert await EventBus(db).publish(new_event(), "evt_123", CHAIN, CAUSE) == first
        await db.commit()
    assert (refused.value.differs, refused.value.event_id) == ((differs,), first.event_id)
    assert says in str(refused.value)
    assert str(first.event_id) in str(refused.value)
    assert not [word for word in ("swordfish", "secret", "科幻") if word in str(refused.value)]
    assert await row_counts(database) == (1, 1)


async def test_error_names_all_differences_at_once(database: Database) -> None:
    await publish_event(database, "evt_123")
    with pytest.raises(EventIdReused) as refused:
        await publish_event(database, "evt_123", aggregate_id="c-2", event_version=2, payload={})
    assert refused.value.differs == ("event_version", "aggregate_id", "payload")


async def test_rollback_leaves_nothing_and_the_id_can_be_used_again(database: Database) -> None:
    async with database.sessions() as db:
        await EventBus(db).publish(new_event(), "evt_123")
        await db.rollback()
    assert await row_counts(database) == (0, 0)
    assert (await publish_event(database, "evt_123", payload={"other": 1})).payload == {"other": 1}


@pytest.mark.guarantee("G34")
@pytest.mark.parametrize(
    ("changes", "topic", "error"),
    [
        ({"payload": {"a": "\x00"}}, "domain-events", EventIncomplete),
        ({"payload": {"a": object()}}, "domain-events", EventIncomplete),
        ({"event_type": "Suite.Counter\n.Created"}, "domain-events", EventIncomplete),
        ({"event_id": event_uuid("evt_9")}, "domain-events", EventIncomplete),
        ({"payload": {"a": "x" * 1_000_000}}, "domain-events", MessageTooLarge),
        ({}, "undeclared", TopicUndeclared),
    ],
)
async def test_event_refused_by_the_outbox_leaves_the_transaction_usable(
    database: Database, changes: dict[str, Any], topic: str, error: type[Exception]
) -> None:
    async with database.sessions() as db:
        with pytest.raises(error):
            await EventBus(db, topic=topic).publish(new_event(**changes), causation_id="evt_9")
        await EventBus(db).publish(new_event(), causation_id="evt_9")
        await db.commit()
    assert await row_counts(database) == (1, 1)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"event_version": 2**31}, "22003"),
        ({"version": 2**31}, "22003"),
        ({"payload": {"a": float("nan")}}, "22P02"),
    ],
)
async def test_error_says_which_content_postgresql_cannot_store(
    database: Database, changes: dict[str, Any], state: str
) -> None:
    with pytest.raises(EventIncomplete, match=rf"rejects the data of event .* \(SQLSTATE {state}\)"):
        await publish_event(database, "evt_123", **changes)
    assert await row_counts(database) == (0, 0)


async def test_event_follows_the_route_of_its_domain(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_TOPICS", "domain-events, suite-events, chosen")
    monkeypatch.setenv("OUTBOX_ROUTES", "Suite=suite-events")
    async with database.sessions() as db:
        await EventBus(db).publish(new_event())
        await EventBus(db, topic="chosen").publish(new_event(version=2))
        rows = await db.scalars(text("SELECT topic FROM event_outbox ORDER BY seq"))
    assert list(rows) == ["suite-events", "chosen"]


@pytest.mark.guarantee("G28")
async def test_new_event_is_notified_at_its_commit_and_a_repeated_one_not(database: Database) -> None:
    told: list[set[str]] = []

    class Ears(Notifier):
        def notify(self, keys: Any) -> None:
            told.append(set(keys))

    Ears(database).attach(database.sessions)
    await publish_event(database, "evt_123")
    await publish_event(database, "evt_123")
    assert told == [{"c-1"}]
