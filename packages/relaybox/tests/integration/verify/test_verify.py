"""Findings of a verification: each violation on a real topic, and none on a correct topic."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from relaybox.db import Database
from relaybox.operations import Selection, purge, skip
from relaybox.relay import Relay
from relaybox.settings import KafkaSettings, PostgresSettings, RelaySettings
from relaybox.verify import Kind, Report, partition_of, verify
from relaybox.verify._tables import Snapshot, Tables

from tests.fixtures.outbox_rows import fail_rows
from tests.fixtures.relays import put_events, rows_of, running, wait_until_all_sent
from tests.fixtures.topic_records import (
    Row,
    delete_records,
    make_producer,
    mark_sent,
    produce,
    publish,
    run_statement,
    unknown_id,
    write_events,
)

KEYS = ["a", "b", "c"]
Verify = Callable[..., Any]


@pytest.fixture
def verified(postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str) -> Verify:
    async def run(**options: Any) -> Report:
        return await verify(postgres_settings, kafka_settings, topics=[topic], **options)

    return run


def found(report: Report) -> dict[Kind, int]:
    """Return the number of events per kind, without zeros."""
    return {kind: tally.events for kind, tally in report.tallies.items() if tally.events}


def of(rows: list[Row], key: str) -> list[Row]:
    return [row for row in rows if row["key"] == key]


def ids_of(report: Report, kind: Kind) -> list[str | None]:
    return [one.event_id for each in report.findings if each.kind is kind for one in each.examples]


@pytest.mark.guarantee("G33")
async def test_events_published_by_a_relay_have_no_finding(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    await write_events(database, topic, KEYS, 40)
    async with running(Relay(database, kafka_settings, RelaySettings(poll_interval=3_600))):
        await wait_until_all_sent(database)
    report = await verified()
    assert report.holds()
    assert found(report) == {}
    assert report.findings == ()
    assert (report.events, report.published, report.records, report.duplicates) == (120, 120, 120, 0)


@pytest.mark.guarantee("G33")
async def test_sent_event_on_no_topic_is_lost(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS, 3)
    gone = of(rows, "b")[1]
    await publish(database, kafka_settings, [row for row in rows if row is not gone])
    await mark_sent(database, [gone])

    report = await verified()
    assert not report.holds(allow_duplicates=True)
    assert found(report) == {Kind.LOST: 1}
    assert report.published == 8
    [finding] = report.findings
    assert (finding.kind, finding.topic, finding.key, finding.events) == (Kind.LOST, topic, "b", 1)
    [event] = finding.examples
    assert event.event_id == gone["payload"]["event_id"]
    assert (event.row_id, event.seq, event.version) == (str(gone["id"]), gone["seq"], 2)
    assert (event.partition, event.offset) == (None, None)


@pytest.mark.guarantee("G33")
async def test_events_of_removed_rows_must_be_on_the_topic(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS, 3)
    gone = of(rows, "c")[2]
    await publish(database, kafka_settings, [row for row in rows if row is not gone])
    await run_statement(database, "DELETE FROM event_outbox")

    report = await verified()
    assert found(report) == {Kind.LOST: 1}
    [finding] = report.findings
    assert (finding.topic, finding.key) == (None, "c")
    assert ids_of(report, Kind.LOST) == [gone["payload"]["event_id"]]


@pytest.mark.guarantee("G33")
async def test_skipped_event_stays_skipped_after_its_row_is_purged(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS, 3)
    gap = of(rows, "c")[1]
    await publish(database, kafka_settings, [row for row in rows if row is not gap])
    await fail_rows(database, gap["seq"])
    async with database.connection() as connection:
        await skip(connection, Selection(seqs=[gap["seq"]]), by="ann", reason="test")
        await purge(connection, Selection(), by="ann")
    assert await rows_of(database) == []

    report = await verified()
    assert report.holds()
    assert found(report) == {Kind.SKIPPED: 1}
    assert ids_of(report, Kind.SKIPPED) == [gap["payload"]["event_id"]]


@pytest.mark.guarantee("G33")
async def test_events_of_a_removed_topic_are_lost(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    await put_events(database, "removed-since", ["a"], count=2)
    await mark_sent(database, (await rows_of(database))[:1])
    assert found(await verified()) == {Kind.LOST: 1, Kind.PENDING: 1}


@pytest.mark.guarantee("G33")
async def test_second_record_of_an_event_is_duplicated(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS, 3)
    await publish(database, kafka_settings, rows)
    again = of(rows, "a")[:2]
    produce(make_producer(kafka_settings), again)
    produce(make_producer(kafka_settings), again)

    report = await verified()
    assert found(report) == {Kind.DUPLICATED: 2}, "order is that of first appearances"
    assert (report.duplicates, report.published, report.records) == (4, 9, 13)
    assert ids_of(report, Kind.DUPLICATED) == [row["payload"]["event_id"] for row in again]
    assert not report.holds()
    assert report.holds(allow_duplicates=True)


@pytest.mark.guarantee("G33")
async def test_duplicates_of_unknown_events_are_counted(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    await put_events(database, topic, ["a"], count=2)
    rows = await rows_of(database)
    produce(make_producer(kafka_settings), [*rows, rows[0]])
    await run_statement(database, "DELETE FROM event_outbox")
    report = await verified()
    assert found(report) == {Kind.DUPLICATED: 1, Kind.UNKNOWN: 2}


@pytest.mark.guarantee("G33")
@pytest.mark.parametrize("reference", ["outbox", "events"])
async def test_event_behind_a_later_one_is_reordered(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify, reference: str
) -> None:
    if reference == "outbox":
        await put_events(database, topic, KEYS, count=4)
        rows = await rows_of(database)
    else:
        rows = await write_events(database, topic, KEYS, 4)
    first, second, third, fourth = of(rows, "b")
    await publish(
        database, kafka_settings, [*of(rows, "a"), first, third, second, fourth, *of(rows, "c"), second]
    )
    if reference == "events":
        await run_statement(database, "DELETE FROM event_outbox")

    report = await verified()
    assert not report.holds(allow_duplicates=True)
    assert found(report) == {Kind.REORDERED: 1, Kind.DUPLICATED: 1}
    assert ids_of(report, Kind.REORDERED) == [second["payload"]["event_id"]]


@pytest.mark.guarantee("G33")
async def test_pending_failed_and_skipped_events_are_not_lost(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS, 2)
    (pending, _), (failed, _), (skipped, sent) = (of(rows, key) for key in KEYS)
    await publish(database, kafka_settings, [sent])
    error = "status = 'FAILED', error_data = '{}'"
    await run_statement(database, f"UPDATE event_outbox SET {error} WHERE id = $1", failed["id"])
    await run_statement(
        database, f"UPDATE event_outbox SET {error}, skipped_at = now() WHERE id = $1", skipped["id"]
    )

    report = await verified()
    assert report.holds()
    assert found(report) == {Kind.PENDING: 3, Kind.FAILED: 1, Kind.SKIPPED: 1}
    assert (report.events, report.published) == (6, 1)
    first = {each.kind: each.examples[0].row_id for each in reversed(report.findings)}
    assert first == {
        Kind.PENDING: str(pending["id"]),
        Kind.FAILED: str(failed["id"]),
        Kind.SKIPPED: str(skipped["id"]),
    }


@pytest.mark.guarantee("G33")
async def test_records_of_other_producers_are_unknown(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    await publish(database, kafka_settings, await write_events(database, topic, KEYS))
    other = make_producer(kafka_settings)
    other.produce(topic, b"{}", "of others", headers=[("ce_id", unknown_id())])
    other.produce(topic, b"\x00 no event", b"\xff\x00", headers=[("ce_id", b"\xff\x00")])
    other.produce(topic, None, None)
    produce(other, [])

    report = await verified()
    assert report.holds()
    assert found(report) == {Kind.UNKNOWN: 3}, "keys of other writers may be anywhere"
    assert {each.key for each in report.findings} == {"of others", "��", None}


@pytest.mark.guarantee("G33")
async def test_event_in_structured_mode_is_matched(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    [row] = await write_events(database, topic, ["a"])
    value = f'{{"specversion": "1.0", "id": "{row["payload"]["event_id"]}"}}'
    to = make_producer(kafka_settings)
    to.produce(topic, value, "a", headers=[("content-type", "application/cloudevents+json; charset=utf-8")])
    produce(to, [])
    await mark_sent(database, [row])
    report = await verified()
    assert (found(report), report.published) == ({}, 1)


@pytest.mark.guarantee("G33")
async def test_events_removed_by_retention_are_not_lost(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    keys = [f"key-{number}" for number in range(12)]
    rows = await write_events(database, topic, keys, 6)
    # Lost between an earlier and a later event of this key on the topic.
    lost = of(rows, "key-0")[4]
    await publish(database, kafka_settings, [row for row in rows if row is not lost])
    await mark_sent(database, [lost])
    cut, whole = (
        partition_of("key-0", 4),
        [key for key in keys if partition_of(key, 4) != partition_of("key-0", 4)],
    )
    assert whole
    removed = 3 * sum(key not in whole for key in keys)
    delete_records(kafka_settings, topic, {cut: removed})

    report = await verified()
    assert found(report) == {Kind.LOST: 1, Kind.BEYOND_RETENTION: removed}
    assert ids_of(report, Kind.LOST) == [lost["payload"]["event_id"]]
    assert report.published == len(rows) - removed - 1


@pytest.mark.guarantee("G33")
async def test_emptied_partition_affects_only_its_keys(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    keys = [f"key-{number}" for number in range(8)]
    rows = await write_events(database, topic, keys)
    emptied = partition_of("key-0", 4)
    inside = [key for key in keys if partition_of(key, 4) == emptied]
    lost = next(row for row in rows if row["key"] not in inside)
    await publish(database, kafka_settings, [row for row in rows if row is not lost])
    await mark_sent(database, [lost])
    delete_records(kafka_settings, topic, {emptied: len(inside)})

    report = await verified()
    assert found(report) == {Kind.LOST: 1, Kind.BEYOND_RETENTION: len(inside)}
    assert ids_of(report, Kind.LOST) == [lost["payload"]["event_id"]]


@pytest.mark.guarantee("G33")
async def test_event_newer_than_the_oldest_record_is_lost(
    database: Database, kafka_settings: KafkaSettings, make_topic: Callable[..., str], postgres_settings: Any
) -> None:
    topic = make_topic(partitions=1)
    await put_events(database, topic, ["a"], count=3)
    await publish(database, kafka_settings, await rows_of(database))
    delete_records(kafka_settings, topic, {0: 2})
    await put_events(database, topic, ["b"])
    await run_statement(
        database, "UPDATE event_outbox SET created_at = now() + interval '1 minute' WHERE key = 'b'"
    )
    await run_statement(
        database,
        "UPDATE event_outbox SET status = 'SENT', sent_at = now() + interval '5 minutes' WHERE key = 'b'",
    )
    report = await verify(postgres_settings, kafka_settings, topics=[topic])
    assert found(report) == {Kind.LOST: 1, Kind.BEYOND_RETENTION: 2}
    assert [each.key for each in report.findings] == ["b", "a"]


@pytest.mark.guarantee("G33")
async def test_running_system_has_no_lost_or_unknown_events(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    verified: Verify,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await publish(database, kafka_settings, await write_events(database, topic, KEYS))
    take_snapshot = Tables.take_snapshot

    async def in_the_midst(tables: Tables, *args: Any) -> Snapshot:
        await put_events(database, topic, ["sent before the snapshot", "in flight", "waiting"])
        before, in_flight, _ = (await rows_of(database))[3:]
        await publish(database, kafka_settings, [before])
        produce(make_producer(kafka_settings), [in_flight])
        snapshot = await take_snapshot(tables, *args)
        await put_events(database, topic, ["written after it"])
        await publish(database, kafka_settings, (await rows_of(database))[-1:])
        return snapshot

    monkeypatch.setattr(Tables, "take_snapshot", in_the_midst)
    report = await verified()
    assert found(report) == {Kind.PENDING: 1}
    assert (report.events, report.published, report.records) == (6, 5, 6)


@pytest.mark.guarantee("G33")
async def test_aborted_records_are_read_uncommitted_only(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS)
    to = make_producer(kafka_settings, transactional_id=unknown_id())
    to.init_transactions(30)
    to.begin_transaction()
    produce(to, rows)
    to.abort_transaction(30)
    to.begin_transaction()
    produce(to, rows)
    to.commit_transaction(30)
    await mark_sent(database, rows)

    committed = await verified()
    assert (found(committed), committed.published, committed.records) == ({}, 3, 3)
    everything = await verified(isolation="read_uncommitted")
    assert found(everything) == {Kind.DUPLICATED: 3}
    assert everything.isolation == "read_uncommitted"


@pytest.mark.guarantee("G33")
async def test_verification_of_one_key_ignores_others(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS, 2)
    await mark_sent(database, rows)
    produce(make_producer(kafka_settings), of(rows, "a"))
    assert found(await verified()) == {Kind.LOST: 4}
    alone = await verified(key="a")
    assert (found(alone), alone.events, alone.records) == ({}, 2, 2)
    assert found(await verified(key="b")) == {Kind.LOST: 2}


@pytest.mark.guarantee("G33")
async def test_events_before_since_are_neither_lost_nor_unknown(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    rows = await write_events(database, topic, KEYS, 2)
    await publish(database, kafka_settings, rows[:-1])
    await mark_sent(database, rows)
    await run_statement(
        database,
        "UPDATE event_outbox SET created_at = now() - interval '2 hours' WHERE key = 'c' OR seq % 2 = 0",
    )
    since = datetime.now(UTC) - timedelta(hours=1)
    report = await verified(since=since)
    assert found(report) == {}
    assert report.events == report.published < len(rows)
    assert found(await verified(since=since - timedelta(hours=2))) == {Kind.LOST: 1}
    later = await verified(since=since + timedelta(hours=2))
    assert (found(later), later.events, later.records) == ({}, 0, 0)


@pytest.mark.guarantee("G33")
async def test_clock_of_a_publisher_may_lag(
    database: Database, kafka_settings: KafkaSettings, topic: str, verified: Verify
) -> None:
    [row] = await write_events(database, topic, ["a"])
    late_ms = int((datetime.now(UTC) - timedelta(minutes=2)).timestamp() * 1_000)
    to = make_producer(kafka_settings)
    to.produce(topic, b"{}", "a", headers=[("ce_id", row["payload"]["event_id"])], timestamp=late_ms)
    produce(to, [])
    await mark_sent(database, [row])
    report = await verified(since=datetime.now(UTC) - timedelta(minutes=1))
    assert (found(report), report.published) == ({}, 1)
