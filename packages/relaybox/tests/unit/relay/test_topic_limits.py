"""Limits of topics whose configuration the brokers do not return; the brokers are imitated."""

from collections.abc import Mapping
from typing import Any, Never

import pytest
from confluent_kafka import KafkaError
from relaybox.relay import _kafka
from relaybox.relay._errors import LinkDown
from relaybox.relay._kafka import TopicLimits
from structlog.testing import capture_logs

#: Kafka's default of max.message.bytes.
DEFAULT_BYTES = 1_048_588
#: Imitated brokers do not use it.
ADMIN: Any = None


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Mapping[str, str | None] | KafkaError]:
    """Return the responses of the brokers by topic, to be filled by the test."""
    configs: dict[str, Mapping[str, str | None] | KafkaError] = {}
    monkeypatch.setattr(_kafka, "topic_configs", lambda *_: configs)
    return configs


def test_topic_without_the_right_to_read_its_limit_has_the_default(configs: dict[str, Any]) -> None:
    configs["a"] = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    configs["b"] = {"max.message.bytes": "2000"}
    with capture_logs() as lines:
        assert TopicLimits(ADMIN).of(["a", "b"]) == {"a": DEFAULT_BYTES, "b": 2_000}
    assert [(line["log_level"], line["topic"]) for line in lines] == [("warning", "a")]


def test_topic_that_does_not_exist_has_no_limit(configs: dict[str, Any]) -> None:
    configs["a"] = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
    limits = TopicLimits(ADMIN)
    assert limits.of(["a"]) == {}
    assert limits.cached(["a"]) is None


@pytest.mark.guarantee("G25")
def test_other_error_of_the_brokers_is_a_failure_of_the_link(configs: dict[str, Any]) -> None:
    configs["a"] = KafkaError(KafkaError.REQUEST_TIMED_OUT)
    with pytest.raises(LinkDown, match="no broker returns the configuration of 'a'"):
        TopicLimits(ADMIN).of(["a"])


@pytest.mark.guarantee("G25")
def test_silent_brokers_are_a_failure_of_the_link(monkeypatch: pytest.MonkeyPatch) -> None:
    def time_out(*_: object) -> Never:
        raise TimeoutError

    monkeypatch.setattr(_kafka, "topic_configs", time_out)
    with pytest.raises(LinkDown, match="no broker returned the topics' configuration in time"):
        TopicLimits(ADMIN).of(["a"])
