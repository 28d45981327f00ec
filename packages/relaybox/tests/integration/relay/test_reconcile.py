"""Reading what a lost history of PostgreSQL published, on a real Kafka (G35)."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from confluent_kafka import Producer
from relaybox.relay._errors import PublishedUnknown
from relaybox.relay._reconcile import PublishedEvents
from relaybox.settings import KafkaSettings

from tests.fixtures.bounds import WAIT_S

Read = Callable[[str], PublishedEvents]


@pytest.fixture
async def read(kafka_settings: KafkaSettings) -> AsyncIterator[Read]:
    """Read a topic since an hour ago; closed after the test."""
    made: list[PublishedEvents] = []

    def begin(topic: str) -> PublishedEvents:
        made.append(PublishedEvents(kafka_settings, {topic: datetime.now(UTC) - timedelta(hours=1)}))
        return made[-1]

    yield begin
    for events in made:
        await asyncio.to_thread(events.close)


def transactional(settings: KafkaSettings) -> Producer:
    """A producer whose first transaction can begin."""
    producer = Producer({**settings.client(), "log_level": 0, "transactional.id": f"test-{uuid4()}"})
    producer.init_transactions(WAIT_S)
    return producer


async def test_reading_behind_an_open_transaction_goes_on_in_steps(
    kafka_settings: KafkaSettings, topic: str, read: Read
) -> None:
    producer = transactional(kafka_settings)
    producer.begin_transaction()
    producer.produce(topic, b"{}", key=b"a", headers=[("ce_id", b"held back")])
    assert producer.flush(WAIT_S) == 0
    events = read(topic)

    assert await asyncio.to_thread(events.next_ids) == []

    producer.commit_transaction(WAIT_S)
    found: list[str] = []
    while (ids := await asyncio.to_thread(events.next_ids)) is not None:
        found += ids
    assert found == ["held back"]


async def test_a_compacted_topic_cannot_tell_what_was_published(
    make_topic: Callable[..., str], read: Read
) -> None:
    events = read(make_topic(cleanup_policy="compact"))
    with pytest.raises(PublishedUnknown, match="compacted"):
        await asyncio.to_thread(events.next_ids)
