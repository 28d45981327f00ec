"""Rows that a broker rejects, delivered at least once; the broker and librdkafka are imitated."""

from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import KafkaError
from relaybox.relay import _at_least_once
from relaybox.relay._at_least_once import AtLeastOnce
from relaybox.relay._batches import Batch
from relaybox.relay._errors import RecordRefused
from relaybox.relay._messages import Message
from relaybox.settings import KafkaSettings
from relaybox.topics import PartitionWatch

ATTRIBUTES = ("1", "T", None, None, None, None, None, None)
REJECTED = KafkaError(KafkaError.INVALID_RECORD)
ROOMY = 1_000_000

Report = Callable[[KafkaError | None, object], None]


def message(seq: int, key: str | None, value: bytes = b"{}") -> Message:
    return Message(seq, 0, 1, "t", key, 0, value, ATTRIBUTES, "binary", UUID(int=seq))


class Broker:
    """Rejects each request that contains the value ``bad``, as a whole."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.request: list[tuple[bytes, Report]] = []

    def produce(self, _t: str, value: bytes, *_: Any, on_delivery: Report, headers: Any) -> None:
        self.request.append((value, on_delivery))

    def flush(self, _limit_s: float) -> int:
        rejected = any(value == b"bad" for value, _ in self.request)
        for value, report in self.request:
            report(REJECTED if rejected else None, None)
            self.written += [] if rejected else [value]
        self.request = []
        return 0

    def purge(self, **_: bool) -> None:
        """Forget what was not sent."""

    def __len__(self) -> int:
        return len(self.request)


class Limits:
    """An admin client that knows one topic, with room for any row."""

    def __init__(self, _connection: Mapping[str, Any]) -> None:
        pass

    def connect(self) -> None:
        """Connect to nothing."""

    close = forget_limits = connect

    def limits(self, topics: Iterable[str]) -> Mapping[str, int]:
        return dict.fromkeys(topics, ROOMY)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
async def delivery(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[AtLeastOnce]:
    monkeypatch.setattr(_at_least_once, "BrokerClient", Limits)
    monkeypatch.setattr(_at_least_once, "Producer", lambda _settings: broker)
    monkeypatch.setattr(_at_least_once, "warm_up", lambda _producer: None)
    kafka = KafkaSettings(port=1)
    watch = PartitionWatch({}, on_change=lambda _lost, _restored: None)
    delivery = AtLeastOnce(kafka, compression="none", partitions=watch)
    yield delivery
    await delivery.close()


@pytest.mark.guarantee("G34")
async def test_later_rows_of_a_rejected_row_are_not_published(delivery: AtLeastOnce, broker: Broker) -> None:
    rows = [message(1, "a"), message(2, "a", b"bad"), message(3, "a"), message(4, "b"), message(5, None)]
    outcome = await delivery.publish(Batch(messages=rows, lanes=frozenset({0})))
    assert [row.seq for row in outcome.sent] == [1, 4, 5]
    [(culprit, fault)] = outcome.faulty
    assert culprit.seq == 2
    assert isinstance(fault, RecordRefused)
    assert outcome.link is None
    assert len(broker.written) == 3


@pytest.mark.guarantee("G34")
async def test_rejected_row_without_a_key_delays_no_other_row(delivery: AtLeastOnce) -> None:
    rows = [message(1, None, b"bad"), message(2, None), message(3, "a")]
    outcome = await delivery.publish(Batch(messages=rows, lanes=frozenset({0})))
    assert [row.seq for row in outcome.sent] == [2, 3]
    assert [row.seq for row, _ in outcome.faulty] == [1]
