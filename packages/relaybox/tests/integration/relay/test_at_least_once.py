"""The outcome that at-least-once delivery reports for a batch."""

import json
from uuid import UUID

import pytest
from confluent_kafka import Producer
from relaybox.local import LocalKafka
from relaybox.relay import _at_least_once
from relaybox.relay._at_least_once import AtLeastOnce
from relaybox.relay._batches import Batch
from relaybox.relay._messages import Message
from relaybox.settings import KafkaSettings
from relaybox.topics import PartitionWatch

ATTRIBUTES = ("1", "T", None, None, None, None, None, None)


def purge_unheard(producer: Producer) -> None:
    """Purge like the real function, but do not wait for all delivery reports."""
    producer.purge(in_queue=True, in_flight=True, blocking=True)


@pytest.mark.guarantee("G23")
async def test_rows_without_a_delivery_report_are_not_acknowledged(
    kafka_settings: KafkaSettings, kafka_server: LocalKafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_at_least_once, "STALL_S", 0.5)
    monkeypatch.setattr(_at_least_once, "discard", purge_unheard)
    watch = PartitionWatch({}, on_change=lambda _lost, _restored: None)
    delivery = AtLeastOnce(kafka_settings, compression="none", partitions=watch)
    messages = [
        Message(
            seq,
            0,
            1,
            topic,
            f"key-{seq}",
            0,
            json.dumps({"event_id": seq}).encode(),
            ATTRIBUTES,
            "binary",
            UUID(int=seq),
        )
        for seq in range(5)
    ]
    await delivery.connect()
    kafka_server.pause()
    try:
        outcome = await delivery.publish(Batch(messages=messages, lanes=frozenset({0})))
    finally:
        kafka_server.resume()
        await delivery.close()
    assert outcome.sent == []
    assert outcome.link is not None
    assert outcome.interrupted == messages
