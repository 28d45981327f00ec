"""Requests about a new topic are repeated while the metadata is stale; the partition of a key."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from relaybox.consumers._group_member import _FATAL
from relaybox.kafka import FORBIDDEN, partition_of, retry_on_stale_metadata, wait_for_leaders

#: From Kafka's own tests (UtilsTest.testMurmur2), as toPositive(hash) % 1000.
MURMUR2 = {"21": -973932308, "foobar": -790332482, "a-little-bit-long-string": -985981536}

NOT_YET = [
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._TIMED_OUT,
    KafkaError._UNKNOWN_PARTITION,
]


def answering(*codes: int, asked: list[int]) -> Callable[[], str]:
    """Return a request that fails with each of *codes*, and then succeeds."""
    left = iter(codes)

    def ask() -> str:
        for code in left:
            asked.append(code)
            raise KafkaException(KafkaError(code))
        return "answer"

    return ask


@pytest.mark.guarantee("G33")
def test_missing_group_permission_ends_consumers_and_no_other_reader() -> None:
    # `verify`, and a relay after a failover, get this error too and continue to read.
    assert KafkaError.GROUP_AUTHORIZATION_FAILED not in FORBIDDEN
    assert KafkaError.GROUP_AUTHORIZATION_FAILED in _FATAL


def test_stale_metadata_is_requested_again() -> None:
    asked: list[int] = []
    assert retry_on_stale_metadata(answering(*NOT_YET, asked=asked), lambda: float("inf")) == "answer"
    assert asked == NOT_YET


def test_unreachable_broker_is_not_retried() -> None:
    asked: list[int] = []
    with pytest.raises(KafkaException):
        retry_on_stale_metadata(answering(KafkaError._TRANSPORT, asked=asked), lambda: float("inf"))
    assert asked == [KafkaError._TRANSPORT]


def test_stale_metadata_fails_after_the_time_limit() -> None:
    asked: list[int] = []
    with pytest.raises(KafkaException):
        retry_on_stale_metadata(answering(*NOT_YET, asked=asked), lambda: float("-inf"))
    assert asked == NOT_YET[:1]


class Asked:
    """A client whose first request for offsets times out without a leader, and whose next one succeeds."""

    def __init__(self) -> None:
        self.waited_s: list[float] = []

    def list_offsets(
        self, ends: Mapping[TopicPartition, object], request_timeout: float
    ) -> dict[TopicPartition, Future[None]]:
        self.waited_s.append(request_timeout)
        answers = {place: Future[None]() for place in ends}
        for answer in answers.values():
            if len(self.waited_s) == 1:
                answer.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
            else:
                answer.set_result(None)
        return answers


def test_request_for_leaders_without_response_is_repeated_in_time() -> None:
    """A client of librdkafka searched for leaders for 30 s although they had long been elected."""
    client = Asked()
    wait_for_leaders(client, {"topic": 2}, time.monotonic() + 60)
    assert len(client.waited_s) == 2
    assert max(client.waited_s) <= 5


class OutdatedCache:
    """A client that responds from outdated metadata until the metadata is requested again."""

    def __init__(self, code: int) -> None:
        self.renewed: list[str] = []
        self._code = code

    def list_offsets(
        self, ends: Mapping[TopicPartition, object], request_timeout: float
    ) -> dict[TopicPartition, Future[None]]:
        answers = {place: Future[None]() for place in ends}
        for answer in answers.values():
            if self.renewed:
                answer.set_result(None)
            else:
                answer.set_exception(KafkaException(KafkaError(self._code)))
        return answers

    def list_topics(self, topic: str, timeout: float) -> None:
        self.renewed.append(topic)


@pytest.mark.parametrize(
    "code", [KafkaError._NOENT, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC]
)
def test_outdated_cached_metadata_is_renewed(code: int) -> None:
    """A client failed for 120 s although the leader had long been back, or the partition had been added."""
    client = OutdatedCache(code)
    wait_for_leaders(client, {"first": 1, "second": 2}, time.monotonic() + 1)
    assert client.renewed == ["first", "second"]


@pytest.mark.parametrize(("key", "hashed"), MURMUR2.items())
def test_partition_of_key_equals_that_of_kafka_clients(key: str, hashed: int) -> None:
    assert partition_of(key, 1_000) == (hashed & 0x7FFFFFFF) % 1_000
