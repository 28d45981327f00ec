"""Which errors of a transactional producer are repeated, and for how long; librdkafka is imitated."""

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import KafkaError, KafkaException
from relaybox.relay import _transaction
from relaybox.relay._batches import LaneBatch, TransactionState
from relaybox.relay._errors import LinkDown, TransactionUnfinished
from relaybox.relay._transaction import LaneProducer, Markers

BUSY = KafkaError(KafkaError.CONCURRENT_TRANSACTIONS, retriable=True)
AWAY = KafkaError(KafkaError._ALL_BROKERS_DOWN, retriable=True)
FENCED = KafkaError(KafkaError._FENCED)
NEVER = float("inf")
#: In the past of any monotonic clock.
PAST = -1.0


class Librdkafka:
    """A producer that has nothing to send; each call raises the next of *errors*, if there is one."""

    def __init__(self, errors: list[KafkaError]) -> None:
        self.errors = errors
        self.calls = 0

    def init_transactions(self, _limit_s: float) -> None:
        self.calls += 1
        if self.errors:
            raise KafkaException(self.errors.pop(0))

    commit_transaction = init_transactions

    def begin_transaction(self) -> None:
        """Begin nothing."""

    def produce(self, *_: Any, **__: Any) -> None:
        """Send nothing."""

    def __len__(self) -> int:
        return 0


Make = Callable[..., tuple[LaneProducer, Librdkafka]]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make a producer whose calls fail with *errors*."""

    def make(*errors: KafkaError, deadline_s: float = NEVER) -> tuple[LaneProducer, Librdkafka]:
        librdkafka = Librdkafka(list(errors))
        monkeypatch.setattr(_transaction, "Producer", lambda _settings: librdkafka)
        markers = Markers({}, UUID(int=0))
        producer = LaneProducer({}, markers, 0, 0, batch_bytes=1_000, deadline=lambda: deadline_s)
        return producer, librdkafka

    return make


def claimed() -> LaneBatch:
    batch = LaneBatch(messages=[], lanes=frozenset({0}))
    batch.number.set_result(1)
    return batch


def test_opening_is_repeated_while_its_errors_are_retriable(make: Make) -> None:
    producer, librdkafka = make(BUSY, AWAY)
    producer.open()
    assert librdkafka.calls == 3


@pytest.mark.parametrize(
    ("error", "limit_s", "deadline_s"), [(FENCED, 60.0, NEVER), (AWAY, PAST, NEVER), (AWAY, 60.0, PAST)]
)
def test_opening_ends_with_a_fatal_error_or_at_its_limit(
    make: Make, error: KafkaError, limit_s: float, deadline_s: float
) -> None:
    producer, librdkafka = make(error, deadline_s=deadline_s)
    with pytest.raises(LinkDown, match=r"transactional producer relaybox-.* cannot be initialised"):
        producer.open(limit_s)
    assert librdkafka.calls == 1


@pytest.mark.guarantee("G36")
def test_open_transaction_of_the_former_producer_is_named(make: Make) -> None:
    producer, _ = make(BUSY)
    with pytest.raises(
        TransactionUnfinished, match=r"transaction of transactional\.id relaybox-.* has not ended"
    ):
        producer.open(PAST)


def test_commit_is_repeated_while_its_errors_are_retriable(make: Make) -> None:
    producer, librdkafka = make(BUSY, AWAY)
    assert producer.publish(claimed()).state is TransactionState.COMMITTED
    assert librdkafka.calls == 3


def test_open_transaction_ends_45_s_after_its_producer(monkeypatch: pytest.MonkeyPatch) -> None:
    """`relaybox verify` waits for the end of an open transaction on the assumption of 45 s."""
    settings: list[dict[str, Any]] = []
    monkeypatch.setattr(_transaction, "Producer", settings.append)
    LaneProducer({}, Markers({}, UUID(int=0)), 0, 0, batch_bytes=1_000, deadline=lambda: NEVER)
    assert settings[0]["transaction.timeout.ms"] == 45_000
    assert settings[0]["message.timeout.ms"] < 45_000


@pytest.mark.guarantee("G31")
@pytest.mark.parametrize(("error", "deadline_s"), [(FENCED, NEVER), (AWAY, PAST)])
def test_commit_that_fails_for_good_leaves_the_transaction_in_doubt(
    make: Make, error: KafkaError, deadline_s: float
) -> None:
    producer, librdkafka = make(error, deadline_s=deadline_s)
    result = producer.publish(claimed())
    assert (result.state, result.error) == (TransactionState.IN_DOUBT, error)
    assert librdkafka.calls == 1
