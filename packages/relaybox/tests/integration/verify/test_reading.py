"""Topics that cannot be read to their end, or only later."""

import asyncio
from typing import Any

import pytest
from relaybox.db import Database
from relaybox.local import free_port
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.verify import Kind, TopicHeldBack, TopicUnreadable, verify
from relaybox.verify import _topics as topics_module
from relaybox.verify._topics import Reader

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.raw_headers import publish_with_header
from tests.fixtures.topic_records import (
    delete_records,
    make_producer,
    mark_sent,
    produce,
    publish,
    unknown_id,
    write_events,
)


@pytest.fixture
def topic(make_topic: Any) -> str:
    """A topic with one partition, so that an open transaction hides all later records."""
    return make_topic(partitions=1)


@pytest.mark.guarantee("G33")
async def test_reader_waits_for_an_open_transaction(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    in_flight, behind = await write_events(database, topic, ["a", "b"])
    to = make_producer(kafka_settings, transactional_id=unknown_id())
    to.init_transactions(30)
    to.begin_transaction()
    produce(to, [in_flight])
    await publish(database, kafka_settings, [behind])

    loop, held_back = asyncio.get_running_loop(), asyncio.Event()
    check = Reader._check_timeouts

    def check_and_signal(reader: Reader) -> None:
        if reader._held_back_partitions:
            loop.call_soon_threadsafe(held_back.set)
        check(reader)

    monkeypatch.setattr(Reader, "_check_timeouts", check_and_signal)
    verifying = asyncio.create_task(verify(postgres_settings, kafka_settings, topics=[topic]))
    async with asyncio.timeout(WAIT_S):
        await held_back.wait()
        await asyncio.to_thread(to.commit_transaction, 30)
        report = await verifying
    assert report.holds()
    assert (report.events, report.published, report.records) == (2, 2, 2)


@pytest.mark.guarantee("G33")
async def test_transaction_that_never_ends_is_an_error(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topics_module, "_HELD_BACK_MAX_S", 0)
    in_flight, behind = await write_events(database, topic, ["a", "b"])
    to = make_producer(kafka_settings, transactional_id=unknown_id())
    to.init_transactions(30)
    to.begin_transaction()
    produce(to, [in_flight])
    await publish(database, kafka_settings, [behind])
    with pytest.raises(TopicHeldBack, match=f"{topic}, partition 0: a transaction is open"):
        await verify(postgres_settings, kafka_settings, topics=[topic])
    to.abort_transaction(30)


@pytest.mark.guarantee("G33")
async def test_records_removed_during_the_read_are_an_error(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await publish(database, kafka_settings, await write_events(database, topic, ["a"], 3))
    create = Reader.__init__

    def too_late(reader: Reader, *args: Any) -> None:
        delete_records(kafka_settings, topic, {0: 2})
        create(reader, *args)

    monkeypatch.setattr(Reader, "__init__", too_late)
    with pytest.raises(TopicUnreadable, match="partition 0: records were removed before they were read"):
        await verify(postgres_settings, kafka_settings, topics=[topic])


def test_silent_broker_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics_module, "_SILENCE_MAX_S", 0.5)
    away = KafkaSettings(host="127.0.0.1", port=free_port())
    reader = Reader(away, {("topic", 0): 0}, {("topic", 0): 1}, "read_committed")
    with pytest.raises(TopicUnreadable, match=f"at 127.0.0.1:{away.port}: .*(refused|down)"):
        read_to_the_end(reader)
    reader.close()


def read_to_the_end(reader: Reader) -> None:
    while not reader.done:
        reader.read()


@pytest.mark.guarantee("G33")
async def test_report_limits_keys_and_counts_all(
    database: Database, postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    await mark_sent(database, await write_events(database, topic, ["a", "b", "c"], 5))
    report = await verify(postgres_settings, kafka_settings, topics=[topic], keys_max=2)
    tally = report.tallies[Kind.LOST]
    assert (tally.events, tally.keys) == (15, 3)
    assert [(each.key, each.events, len(each.examples)) for each in report.findings] == [
        ("a", 5, 3),
        ("b", 5, 3),
    ]
    assert [one.version for one in report.findings[0].examples] == [1, 2, 3]


@pytest.mark.guarantee("G33")
async def test_record_with_a_header_that_is_not_utf8_is_read(
    postgres_settings: PostgresSettings, kafka_settings: KafkaSettings, topic: str
) -> None:
    publish_with_header(kafka_settings.bootstrap_servers, topic, b"{}", b"n\xff")
    report = await verify(postgres_settings, kafka_settings, topics=[topic])
    assert [finding.kind for finding in report.findings] == [Kind.UNKNOWN]
