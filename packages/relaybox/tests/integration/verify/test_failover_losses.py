"""Verification of events that PostgreSQL lost after they were published."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from relaybox.db import Database
from relaybox.operations import Selection, purge
from relaybox.outbox import RetentionStep, retain
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings
from relaybox.verify import Kind, Report, verify

from tests.fixtures.relays import put_events, rows_of, running, wait_until_all_sent
from tests.fixtures.topic_records import make_producer, produce, record_events, run_statement, unknown_id

SOURCE = "/api-gateway"
Verify = Callable[..., Any]


@pytest.fixture
def verified(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str) -> Verify:
    async def run(**options: Any) -> Report:
        return await verify(postgres_settings, kafka_settings, topics=[topic], **options)

    return run


@pytest.fixture
async def published(database: Database, kafka_settings: KafkaSettings, topic: str) -> list[dict[str, Any]]:
    """Rows of two keys that a relay has published."""
    await put_events(database, topic, ["kept", "lost"], count=2)
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=3_600))):
        await wait_until_all_sent(database)
    return await rows_of(database)


async def lose(database: Database, where: str = "key = 'lost'") -> None:
    """Delete rows as the promotion of a lagging standby does."""
    await run_statement(database, f"DELETE FROM event_outbox WHERE {where}")


async def note_failover(database: Database, ago: timedelta = timedelta()) -> None:
    """Record that a relay noticed a failover some time *ago*."""
    await run_statement(
        database, "UPDATE relay_origin SET history_changed_at = clock_timestamp() - $1::interval", ago
    )


def found(report: Report) -> dict[Kind, int]:
    return {kind: tally.events for kind, tally in report.tallies.items() if tally.events}


def put_record(
    kafka: KafkaSettings, topic: str, *, source: str, at: str | None = None, structured: bool = False
) -> None:
    """Publish an event that is not in the tables."""
    time = at or datetime.now(UTC).isoformat()
    event = {"specversion": "1.0", "id": unknown_id(), "type": "A.B.C", "source": source, "time": time}
    headers = (
        [("content-type", "application/cloudevents+json; charset=UTF-8")]
        if structured
        else [(f"ce_{name}", value) for name, value in event.items()]
    )
    to = make_producer(kafka)
    to.produce(topic, json.dumps(event), "another", headers=headers)
    produce(to, [])


@pytest.mark.guarantee("G35")
async def test_event_that_a_failover_lost_is_not_in_the_database(
    database: Database, published: list[dict[str, Any]], topic: str, verified: Verify
) -> None:
    lost = [row["payload"]["event_id"] for row in published if row["key"] == "lost"]
    await lose(database)
    await note_failover(database)

    report = await verified()
    assert found(report) == {Kind.NOT_IN_DATABASE: 2}
    assert not report.holds(allow_duplicates=True)
    assert report.delivery_holds()
    assert report.remedy == "section 'After a failover' in docs/how-to/blocked-key.md"
    [finding] = report.findings
    assert (finding.kind, finding.topic, finding.key) == (Kind.NOT_IN_DATABASE, topic, "lost")
    assert [one.event_id for one in finding.examples] == lost
    assert {one.partition for one in finding.examples} != {None}
    assert [one.offset for one in finding.examples if one.offset is None] == []


@pytest.mark.guarantee("G35")
async def test_loss_is_found_by_key_and_in_domain_events_too(
    database: Database, published: list[dict[str, Any]], verified: Verify
) -> None:
    await lose(database)
    await record_events(database)
    await lose(database, "key = 'kept'")
    await note_failover(database)
    assert found(await verified()) == {Kind.NOT_IN_DATABASE: 2}
    assert found(await verified(key="lost")) == {Kind.NOT_IN_DATABASE: 2}
    assert found(await verified(key="kept")) == {}


@pytest.mark.guarantee("G35")
async def test_loss_is_found_before_a_relay_noticed_the_failover(
    database: Database, published: list[dict[str, Any]], verified: Verify
) -> None:
    await lose(database)
    await run_statement(database, "UPDATE relay_origin SET history = '1/00000001'")
    assert found(await verified()) == {Kind.NOT_IN_DATABASE: 2}


@pytest.mark.guarantee("G35")
async def test_without_a_failover_no_record_counts_as_a_loss(
    database: Database, published: list[dict[str, Any]], verified: Verify
) -> None:
    await lose(database)
    report = await verified()
    assert found(report) == {Kind.UNKNOWN: 2}
    assert report.holds()
    assert report.remedy is None


@pytest.mark.guarantee("G35")
async def test_event_written_after_the_failover_is_no_loss_of_it(
    database: Database, published: list[dict[str, Any]], verified: Verify
) -> None:
    await lose(database)
    await note_failover(database, timedelta(hours=1))
    assert found(await verified()) == {Kind.UNKNOWN: 2}


@pytest.mark.guarantee("G35")
@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("structured", [False, True])
async def test_record_of_another_producer_is_counted_as_unknown(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify, structured: bool
) -> None:
    await note_failover(database)
    put_record(kafka_settings, topic, source="/another", structured=structured)
    put_record(kafka_settings, topic, source=SOURCE, at="yesterday", structured=structured)
    put_record(kafka_settings, topic, source=SOURCE, at="2026-01-01T00:00:00", structured=structured)
    report = await verified()
    assert (found(report), report.holds()) == ({Kind.UNKNOWN: 3}, True)
    put_record(kafka_settings, topic, source=SOURCE, structured=structured)
    report = await verified()
    assert found(report) == {Kind.UNKNOWN: 3, Kind.NOT_IN_DATABASE: 1}
    assert not report.holds()


@pytest.mark.guarantee("G35")
async def test_event_that_retention_removed_is_no_loss(
    database: Database, published: list[dict[str, Any]], topic: str, verified: Verify
) -> None:
    await put_events(database, topic, ["waits"])
    steps: list[RetentionStep] = []
    while RetentionStep.EMPTIED not in steps:
        async with database.connection() as connection:
            steps += await retain(connection, keep_h=0)
    await note_failover(database)
    report = await verified()
    assert (found(report), report.holds()) == ({Kind.UNKNOWN: 4, Kind.PENDING: 1}, True)


@pytest.mark.guarantee("G35")
async def test_event_that_an_operator_purged_is_no_loss(
    database: Database, published: list[dict[str, Any]], verified: Verify
) -> None:
    async with database.connection() as connection:
        await purge(connection, Selection(keys=("lost",)), by="ann")
    await note_failover(database)
    report = await verified()
    assert (found(report), report.holds()) == ({Kind.UNKNOWN: 2}, True)


@pytest.mark.guarantee("G35")
async def test_loss_before_since_is_ignored(
    database: Database, published: list[dict[str, Any]], verified: Verify
) -> None:
    await lose(database)
    await note_failover(database)
    assert (await verified(since=datetime.now(UTC))).holds()
    assert found(await verified(since=datetime.now(UTC) - timedelta(hours=1))) == {Kind.NOT_IN_DATABASE: 2}


@pytest.mark.guarantee("G35")
async def test_skipped_gap_that_is_purged_hides_no_loss(
    database: Database, published: list[dict[str, Any]], superuser: asyncpg.Connection, verified: Verify
) -> None:
    await lose(database)
    await note_failover(database)
    target = json.dumps({"count": 1, "rows": [{"seq": 1}]})
    await superuser.execute(
        "INSERT INTO operator_acts (actor, act, target) VALUES ('ann', 'purge', $1::jsonb)", target
    )
    assert found(await verified()) == {Kind.NOT_IN_DATABASE: 2}
