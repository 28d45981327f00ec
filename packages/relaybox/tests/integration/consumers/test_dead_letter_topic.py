"""Parked messages are also published to DEAD_LETTER_TOPIC, once, with the failure as headers."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal
from uuid import UUID

import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer, TopicPartition
from pydantic_core import to_json
from relaybox.consumers import Consumer, ConsumerSignal, EventTransaction, SubscriptionInvalid, subscribe
from relaybox.db import Database
from relaybox.events import erase
from relaybox.outbox import TopicUndeclared, parse_record
from relaybox.relay import Relay
from relaybox.settings import DeadLetterSettings, KafkaSettings, PostgresSettings, RelaySettings
from relaybox.verify import verify
from relaybox_types.envelope import EventEnvelope

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.events import REQUESTED, make_event, publish
from tests.fixtures.letters import letter_rows
from tests.fixtures.relays import put_events, rows_of, running, wait_until_all_sent

PARKED = ConsumerSignal.PARKED
FAST = RelaySettings(poll_interval=0.1)


@pytest.fixture
def letter_topic(make_topic: Callable[..., str], topic: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a topic for dead letters, and declare it."""
    name = make_topic()
    monkeypatch.setenv("OUTBOX_TOPICS", f"{topic},{name}")
    monkeypatch.setattr("relaybox.consumers._policy._RETRY_PAUSES_S", (0.0, 0.0, 0.0))
    return name


async def fail(event: EventEnvelope, _unit: EventTransaction) -> None:
    raise RuntimeError(f"password=hidden: {event.aggregate_id}")


def produce(
    settings: KafkaSettings, topic: str, key: bytes | None, value: bytes | None, headers: Any = ()
) -> None:
    producer = Producer({**settings.client_config(), "log_level": 0})
    producer.produce(topic, value, key, headers=list(headers))
    assert producer.flush(WAIT_S) == 0


async def relayed(database: Database, kafka: KafkaSettings, settings: RelaySettings = FAST) -> None:
    """Run a relay until it has published all rows."""
    async with running(Relay(database, kafka, settings)):
        await wait_until_all_sent(database)


def read(settings: KafkaSettings, topic: str, count: int) -> list[Any]:
    """Return the first *count* messages of *topic*."""
    consumer = KafkaConsumer({**settings.client_config(), "group.id": "reader", "log_level": 0})
    try:
        partitions = consumer.list_topics(topic, timeout=WAIT_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        messages = consumer.consume(count, WAIT_S)
    finally:
        consumer.close()
    assert len(messages) == count
    return messages


def headers_of(message: Any) -> dict[str, bytes | None]:
    names = [name for name, _ in message.headers()]
    assert len(names) == len(set(names))
    return dict(message.headers())


@pytest.mark.guarantee("G41")
@pytest.mark.parametrize("cloudevents", ["binary", "structured"])
async def test_parked_message_is_published_with_its_failure(
    cloudevents: Literal["binary", "structured"],
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    group: str,
    start_consumer,
) -> None:
    event = make_event(aggregate_id="a")
    value, trace = event.model_dump_json().encode(), ("trace", b"\xff\x00")
    async with start_consumer(fail, dead_letters=DeadLetterSettings(topic=letter_topic)) as running_consumer:
        produce(kafka_settings, topic, b"a", value, [("ce_type", REQUESTED), trace, ("empty", None)])
        await running_consumer.signals.wait_for(PARKED)
    await relayed(database, kafka_settings, RelaySettings(poll_interval=0.1, cloudevents=cloudevents))
    [message] = read(kafka_settings, letter_topic, 1)
    assert (message.key(), message.value()) == (b"a", value)
    [letter] = await letter_rows(database)
    headers = headers_of(message)
    assert UUID((headers.pop("relaybox_record_id") or b"").decode())
    assert headers == {
        "dead_letter_group": group.encode(),
        "dead_letter_topic": topic.encode(),
        "dead_letter_partition": str(letter["partition"]).encode(),
        "dead_letter_offset": b"0",
        "dead_letter_id": str(letter["id"]).encode(),
        "dead_letter_reason": b"HANDLER_FAILED",
        "dead_letter_error_code": b"RuntimeError",
        "dead_letter_error": b"RuntimeError: password=[redacted] a",
        "dead_letter_attempts": b"4",
        "ce_type": REQUESTED.encode(),
        "trace": b"\xff\x00",
        "empty": None,
    }


@pytest.mark.parametrize(
    ("key", "value"),
    [(b"\xff\x00key", b"\xfe no JSON"), (None, b'{"a": "\\u0000", "a": 1e400}'), (b"", None), (b"k", b"")],
)
async def test_message_that_is_no_event_is_published_byte_for_byte(
    key: bytes | None,
    value: bytes | None,
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    start_consumer,
) -> None:
    async with start_consumer(fail, dead_letters=DeadLetterSettings(topic=letter_topic)) as running_consumer:
        produce(kafka_settings, topic, key, value)
        await running_consumer.signals.wait_for(PARKED)
    await relayed(database, kafka_settings)
    [message] = read(kafka_settings, letter_topic, 1)
    assert (message.key(), message.value()) == (key, value)
    assert headers_of(message)["dead_letter_reason"] == b"ENVELOPE_INVALID"


@pytest.mark.guarantee("G42")
async def test_followers_are_published_in_order_and_once(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    start_consumer,
) -> None:
    events = [make_event(aggregate_id="a", version=version) for version in (1, 2, 3)]
    settings = DeadLetterSettings(topic=letter_topic)
    async with start_consumer(fail, dead_letters=settings) as running_consumer:
        publish(kafka_settings, topic, [*events, events[0]])  # the last one is a redelivery
        await running_consumer.signals.wait_for(PARKED, 3)
        await running_consumer.signals.wait_for(ConsumerSignal.ALREADY_DONE)
    await relayed(database, kafka_settings)
    messages = read(kafka_settings, letter_topic, 3)
    assert [message.value() for message in messages] == [event.model_dump_json().encode() for event in events]
    reasons = [headers_of(message)["dead_letter_reason"] for message in messages]
    assert reasons == [b"HANDLER_FAILED", b"BLOCKED", b"BLOCKED"]
    report = await verify(postgres_settings, kafka_settings, topics=[letter_topic])
    assert report.holds()
    assert (report.events, report.published, report.records) == (3, 3, 3)
    assert not report.findings


async def test_letter_published_twice_or_not_at_all_is_found_by_verify(
    database: Database,
    postgres_settings: PostgresSettings,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    start_consumer,
) -> None:
    settings = DeadLetterSettings(topic=letter_topic)
    async with start_consumer(fail, dead_letters=settings) as running_consumer:
        publish(kafka_settings, topic, [make_event(), make_event()])
        await running_consumer.signals.wait_for(PARKED, 2)
    async with database.connection() as connection:
        await connection.fetch("UPDATE event_outbox SET status = 'SENT', sent_at = now() WHERE seq = 1")
    await relayed(database, kafka_settings)
    [message] = read(kafka_settings, letter_topic, 1)
    produce(kafka_settings, letter_topic, message.key(), message.value(), message.headers())
    report = await verify(postgres_settings, kafka_settings, topics=[letter_topic])
    assert sorted(finding.kind for finding in report.findings) == ["duplicated", "lost"]


@pytest.mark.parametrize(
    ("limit", "omitted"), [(1_000_000, None), (800_000, b"value"), (200_000, b"key, value, headers")]
)
async def test_large_message_is_published_as_far_as_the_limit_allows(
    limit: int,
    omitted: bytes | None,
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    start_consumer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OUTBOX_MESSAGE_BYTES_MAX", str(limit))
    key, value, header = b"k", b"x" * 650_000, ("note", b"y" * 250_000)
    async with start_consumer(fail, dead_letters=DeadLetterSettings(topic=letter_topic)) as running_consumer:
        produce(kafka_settings, topic, key, value, [header])
        await running_consumer.signals.wait_for(PARKED)
    await relayed(database, kafka_settings)
    [message] = read(kafka_settings, letter_topic, 1)
    headers = headers_of(message)
    assert headers.get("dead_letter_omitted") == omitted
    assert message.value() == (value if omitted is None else None)
    everything = omitted == b"key, value, headers"
    assert (message.key(), headers.get("note")) == ((None, None) if everything else (key, header[1]))
    [letter] = await letter_rows(database)
    assert letter["value"] == value


async def test_letter_that_cannot_be_published_blocks_no_event_of_its_key(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    monkeypatch: pytest.MonkeyPatch,
    start_consumer,
) -> None:
    monkeypatch.setenv("OUTBOX_TOPICS", "nowhere")
    async with start_consumer(fail, dead_letters=DeadLetterSettings(topic="nowhere")) as running_consumer:
        publish(kafka_settings, topic, [make_event(aggregate_id="a")])
        await running_consumer.signals.wait_for(PARKED)
    await put_events(database, letter_topic, ["a"])
    async with running(Relay(database, kafka_settings, FAST)):
        [event] = await asyncio.to_thread(read, kafka_settings, letter_topic, 1)
    assert event.key() == b"a"
    [letter, _] = await rows_of(database)
    assert letter["status"] == "PENDING"
    assert letter["error_data"]["class"] == "TopicUnknown"


@pytest.mark.parametrize("published", [True, False])
async def test_erasure_reaches_the_outbox_row_of_a_letter(
    published: bool,
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    start_consumer,
) -> None:
    event = make_event(aggregate_id="秘密")
    async with start_consumer(fail, dead_letters=DeadLetterSettings(topic=letter_topic)) as running_consumer:
        value = event.model_dump_json().encode()
        produce(kafka_settings, topic, b"a", value, [("ce_type", REQUESTED), ("note", b"mine")])
        await running_consumer.signals.wait_for(PARKED)
    if published:
        await relayed(database, kafka_settings)
    [done, again] = [
        await database.run_in_transaction(
            lambda db: erase(db, "GENESIS_SESSION", ["秘密"], actor="ann", reason="purged"),
            isolation="READ COMMITTED",
        )
        for _ in range(2)
    ]
    assert (done.outbox_rows, done.dead_letters, again.outbox_rows) == (1, 1, 0)
    [row] = await rows_of(database)
    record = parse_record(to_json(row["payload"]))
    assert record is not None
    assert record.value == b'{"erased": true}'
    headers = dict(record.headers)
    assert headers.keys() >= {"ce_type", "dead_letter_id", "dead_letter_error_code", "relaybox_record_id"}
    assert headers.keys() & {"note", "dead_letter_error"} == set()
    if not published:
        await relayed(database, kafka_settings)
        [message] = read(kafka_settings, letter_topic, 1)
        assert (message.key(), message.value()) == (b"a", b'{"erased": true}')


async def test_letter_of_another_letter_has_the_headers_of_one_failure(
    database: Database,
    kafka_settings: KafkaSettings,
    topic: str,
    letter_topic: str,
    group: str,
    start_consumer,
) -> None:
    earlier = [("relaybox_record_id", b"1"), ("dead_letter_group", b"other"), ("dead_letter_note", b"x")]
    async with start_consumer(fail, dead_letters=DeadLetterSettings(topic=letter_topic)) as running_consumer:
        produce(kafka_settings, topic, b"a", b"x", earlier)
        await running_consumer.signals.wait_for(PARKED)
    await relayed(database, kafka_settings)
    [message] = read(kafka_settings, letter_topic, 1)
    headers = headers_of(message)
    assert headers["dead_letter_group"] == group.encode()
    assert "dead_letter_note" not in headers


def test_topic_that_the_consumer_reads_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEAD_LETTER_TOPIC", "domain-events")
    with pytest.raises(SubscriptionInvalid, match="DEAD_LETTER_TOPIC is domain-events"):
        Consumer(Database(), KafkaSettings(), [subscribe(REQUESTED, group="group")(fail)])


def test_topic_that_is_not_declared_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEAD_LETTER_TOPIC", "domain-events.dlq")
    with pytest.raises(
        TopicUndeclared, match=r"'domain-events\.dlq' is not declared; add it to OUTBOX_TOPICS"
    ):
        Consumer(Database(), KafkaSettings(), [subscribe(REQUESTED, group="group")(fail)])
