"""An answer about a topic that was made a moment ago is asked for again; any other is what it is."""

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException
from relaybox.kafka import once_settled

NOT_YET = [
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_PARTITION,
]


def answering(*codes: int, asked: list[int]) -> Callable[[], str]:
    """A question that fails with *codes*, one after the other, and then has an answer."""
    left = iter(codes)

    def ask() -> str:
        for code in left:
            asked.append(code)
            raise KafkaException(KafkaError(code))
        return "answer"

    return ask


def test_what_brokers_do_not_know_yet_is_asked_again() -> None:
    asked: list[int] = []
    assert once_settled(answering(*NOT_YET, asked=asked), lambda: float("inf")) == "answer"
    assert asked == NOT_YET


def test_nobody_waits_for_a_broker_that_is_away() -> None:
    asked: list[int] = []
    with pytest.raises(KafkaException):
        once_settled(answering(KafkaError._TRANSPORT, asked=asked), lambda: float("inf"))
    assert asked == [KafkaError._TRANSPORT]


def test_a_topic_that_never_settles_ends_when_the_time_is_over() -> None:
    asked: list[int] = []
    with pytest.raises(KafkaException):
        once_settled(answering(*NOT_YET, asked=asked), lambda: float("-inf"))
    assert asked == NOT_YET[:1]
