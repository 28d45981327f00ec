"""An event exists if, and only if, its transaction commits; events that no broker accepts are refused."""

from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from relaybox.db import Database
from relaybox.outbox import (
    EventIncomplete,
    MessageTooLarge,
    SessionNotAsync,
    TopicUndeclared,
    save_to_outbox,
)
from relaybox.outbox import _append as append
from relaybox_types.envelope import EventEnvelope, build_event_envelope
from sqlalchemy import text
from sqlalchemy.orm import Session, scoped_session, sessionmaker


@pytest.fixture(autouse=True)
def _fresh_limits() -> Iterator[None]:
    append.outbox_settings.cache_clear()
    yield
    append.outbox_settings.cache_clear()


def an_event(**changes: Any) -> dict[str, Any]:
    envelope = build_event_envelope(
        event_type="Suite.Counter.Created",
        aggregate_type="COUNTER",
        aggregate_id="c-1",
        version=1,
        correlation_id=uuid4(),
        payload={"题": "科幻"},
    )
    return envelope.model_dump(mode="json") | changes


async def rows(database: Database) -> list[Any]:
    async with database.sessions() as db:
        found = await db.execute(text("SELECT * FROM event_outbox ORDER BY seq"))
        return list(found.mappings())


async def test_event_exists_if_the_transaction_commits(database: Database) -> None:
    event = an_event()
    async with database.sessions() as db:
        row_id = await save_to_outbox("domain-events", "c-1", event, db)
        assert await rows(database) == []
        await db.commit()

    (row,) = await rows(database)
    assert (row["id"], row["topic"], row["key"], row["status"]) == (row_id, "domain-events", "c-1", "PENDING")
    assert row["payload"] == event
    assert EventEnvelope.model_validate(row["payload"])


async def test_event_does_not_exist_if_the_transaction_rolls_back(database: Database) -> None:
    async with database.sessions() as db:
        await save_to_outbox("domain-events", "c-1", an_event(), db)
        await db.rollback()
    assert await rows(database) == []


async def test_events_of_a_key_keep_the_order_in_which_they_were_saved(database: Database) -> None:
    events = [an_event(version=version) for version in range(1, 6)]
    async with database.sessions() as db:
        for event in events:
            await save_to_outbox("domain-events", "c-1", event, db)
        await db.commit()
    assert [row["payload"]["version"] for row in await rows(database)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "name", ["event_id", "event_type", "aggregate_type", "aggregate_id", "correlation_id", "causation_id"]
)
async def test_error_names_the_missing_field_of_an_event(database: Database, name: str) -> None:
    event = an_event()
    del event[name]
    async with database.sessions() as db:
        with pytest.raises(EventIncomplete, match=f"lacks {name}"):
            await save_to_outbox("domain-events", "c-1", event, db)
        await db.commit()
    assert await rows(database) == []


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"event_id": None}, "lacks event_id"),
        ({"event_id": "evt_123"}, "event_id"),
        ({"correlation_id": "c"}, "correlation_id"),
        ({"version": 0}, "version"),
        (
            {"event_type": "Suite.Counter\n.Created"},
            r"event_type 'Suite.Counter\\n.Created' .* control character",
        ),
        ({"event_type": "Suite.Counter\ufdd0.Created"}, r"event_type '.+' .* noncharacter of Unicode"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"payload": {"a": object()}}, "no valid EventEnvelope"),
        ({"payload": {"a": "\ud800"}}, "no valid EventEnvelope"),
        ({"payload": {"a": "\x00"}}, "NUL"),
    ],
)
async def test_transaction_is_usable_after_a_malformed_event_is_refused(
    database: Database, changes: dict[str, Any], why: str
) -> None:
    async with database.sessions() as db:
        with pytest.raises(EventIncomplete, match=why):
            await save_to_outbox("domain-events", "c-1", an_event(**changes), db)
        await save_to_outbox("domain-events", "c-1", an_event(), db)
        await db.commit()
    assert len(await rows(database)) == 1


@pytest.mark.guarantee("G34")
async def test_undeclared_topic_is_refused(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTBOX_TOPICS", "one, two")
    async with database.sessions() as db:
        assert await save_to_outbox("two", "c-1", an_event(), db)
        with pytest.raises(TopicUndeclared, match="'three' is not declared; add it to OUTBOX_TOPICS"):
            await save_to_outbox("three", "c-1", an_event(), db)


async def test_events_for_domain_events_follow_the_route_of_their_domain(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OUTBOX_TOPICS", "domain-events, suite-events, chosen")
    monkeypatch.setenv("OUTBOX_ROUTES", "Suite = suite-events, Other=chosen")
    async with database.sessions() as db:
        await save_to_outbox("domain-events", "c-1", an_event(), db)
        await save_to_outbox("domain-events", "c-1", an_event(event_type="Suites.Counter.Created"), db)
        await save_to_outbox("chosen", "c-1", an_event(), db)
        await db.commit()
    assert [row["topic"] for row in await rows(database)] == ["suite-events", "domain-events", "chosen"]


@pytest.mark.guarantee("G34")
async def test_size_of_a_number_is_that_of_its_stored_form(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON writes 1e308 in 5 characters; JSONB, and so the message, in 309."""
    monkeypatch.setenv("OUTBOX_MESSAGE_BYTES_MAX", "50000")
    numbers = [1e308, -2.5e300, 5e-324, 1e16] * 20
    async with database.sessions() as db:
        await save_to_outbox("domain-events", "c-1", an_event(payload={"n": numbers}), db)
        with pytest.raises(MessageTooLarge):
            await save_to_outbox("domain-events", "c-1", an_event(payload={"n": numbers * 3}), db)
        await db.commit()
        stored = await db.scalar(text("SELECT max(octet_length(payload::text)) FROM event_outbox"))
    assert 18_000 < stored <= 50_000 - 6_144


@pytest.mark.guarantee("G34")
async def test_accepted_event_is_within_the_brokers_limit(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = 20_000
    monkeypatch.setenv("OUTBOX_MESSAGE_BYTES_MAX", str(limit))
    taken: list[int] = []
    async with database.sessions() as db:
        for numbers in range(0, 8_000, 100):
            try:
                await save_to_outbox("domain-events", "k" * 100, an_event(payload={"n": [0] * numbers}), db)
            except MessageTooLarge:
                break
            taken.append(numbers)
        await db.commit()
    assert 0 < len(taken) < 80
    async with database.sessions() as db:
        largest = await db.scalar(text("SELECT max(octet_length(payload::text)) FROM event_outbox"))
    assert limit / 2 < largest + 3 * 100 + 6_144 <= limit


@pytest.mark.parametrize("session", [Session(), scoped_session(sessionmaker())], ids=["session", "scoped"])
async def test_error_for_a_synchronous_session_names_the_remedy(session: Any) -> None:
    with pytest.raises(SessionNotAsync, match=r"needs an AsyncSession .*, not a synchronous"):
        await save_to_outbox("domain-events", "c-1", an_event(), session)
