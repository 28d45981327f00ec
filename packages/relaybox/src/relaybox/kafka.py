"""What several packages ask Kafka, and its diagnosis as sentences that name the setting to check."""

import time
from collections.abc import Callable, Iterable, Mapping
from threading import Event
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage] - documented there
    OffsetSpec,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

__all__ = (
    "ConnectionDiagnosis",
    "retry_on_stale_metadata",
    "settings_to_check",
    "topic_configs",
    "wait_for_leaders",
)

T = TypeVar("T")
#: A topic that was made is there before every broker has heard of it, and before its leaders know that they
#: are; a leader that has changed looks the same.
STALE_METADATA: Final = frozenset(
    {
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._TIMED_OUT,  # noqa: SLF001 - it found no leader as long as it was asked
        KafkaError._NOENT,  # noqa: SLF001 - librdkafka's local codes are spelled so; it found no leader
        KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001
    }
)
_SETTLE_PAUSE_S: Final = 0.02
_ANSWER_S_MIN: Final = 0.1
#: How long one question is waited for. One that librdkafka began when no leader was known has been seen to
#: look for it until its time was over, 30 s, while another one had its answer at once.
_ANSWER_S_MAX: Final = 5.0

#: What stands in librdkafka's words, and which settings that is about; the first that fits counts.
_SETTINGS_BY_TEXT: Final = (
    ("certificate verify failed", "KAFKA_SSL_CA_FILE, and that the broker's certificate has its KAFKA_HOST"),
    ("ssl.key.location", "KAFKA_SSL_KEY_FILE and KAFKA_SSL_KEY_PASSWORD"),
    ("ssl.certificate.location", "KAFKA_SSL_CERT_FILE"),
    ("ssl.ca.location", "KAFKA_SSL_CA_FILE"),
    ("tls alert", "KAFKA_SSL_CERT_FILE, KAFKA_SSL_KEY_FILE and KAFKA_SECURITY_PROTOCOL"),
    ("PLAINTEXT broker listener", "KAFKA_SECURITY_PROTOCOL"),
    ("mechanism handshake failed", "KAFKA_SASL_MECHANISM"),
    ("SASL authentication error", "KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD"),
)
_ADDRESS: Final = "KAFKA_HOST, KAFKA_PORT and KAFKA_SECURITY_PROTOCOL"


class ConnectionDiagnosis:
    """The most telling of what one client complained of; its ``error_cb`` is :meth:`record`.

    A call that fails says "transport failure" and no more, be it a broker that is down, a wrong password or
    a certificate nobody trusts. Which one it is comes by the callback, before or after.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._servers = bootstrap_servers
        self._error: KafkaError | None = None

    def record(self, error: KafkaError) -> None:
        """Keep *error* unless one that says more is known."""
        if self._error is None or _setting_named_in(error.str()) or not _setting_named_in(self._error.str()):
            self._error = error

    def reset(self) -> None:
        """Start anew: the client has had an answer."""
        self._error = None

    @property
    def reason(self) -> str:
        """The client's own words."""
        return "no answer in time" if self._error is None else self._error.str()

    def message(self, error: KafkaError | None = None) -> str:
        """Where to, why not, and what to check; *error* is what a call ended with, if any did."""
        if error is not None and (
            self._error is None
            or (_setting_named_in(error.str()) and not _setting_named_in(self._error.str()))
        ):
            self._error = error
        what = settings_to_check(self.reason)
        return f"Kafka cannot be reached at {self._servers}: {self.reason}; check {what}"


def retry_on_stale_metadata(ask: Callable[[], T], give_up_at_s: Callable[[], float]) -> T:
    """What *ask* answers, asked again while the brokers have yet to hear of a topic that was just made.

    Blocking. *give_up_at_s* is a time of ``time.monotonic()``, which may change meanwhile.

    Raises:
        KafkaException: it is still unsettled by then, or *ask* failed in another way.
    """
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in STALE_METADATA or time.monotonic() >= give_up_at_s():
                raise
        Event().wait(_SETTLE_PAUSE_S)


def wait_for_leaders(admin: AdminClient, topics: Mapping[str, int], until_s: float) -> None:
    """Return once each partition of *topics*, which says how many a topic has, is led by a broker that knows.

    Blocking. To be called by whoever made them: until then others are told that there are none.

    Raises:
        KafkaException: it is not so at *until_s* of ``time.monotonic()``, or we may not ask.
        TimeoutError: a question has no end.
    """
    ends = {
        TopicPartition(name, number): OffsetSpec.latest()
        for name, count in topics.items()
        for number in range(count)
    }
    asking: Any = admin  # its stubs do not say what the futures hold

    def ask() -> None:
        answer_s = min(_ANSWER_S_MAX, max(_ANSWER_S_MIN, until_s - time.monotonic()))
        for answer in asking.list_offsets(ends, request_timeout=answer_s).values():
            answer.result(answer_s + 1)

    retry_on_stale_metadata(ask, lambda: until_s)


def topic_configs(
    admin: AdminClient, topics: Iterable[str], answer_s: float
) -> dict[str, Mapping[str, str | None] | KafkaError]:
    """Return the configuration of each of *topics*, or the error by which the brokers refuse it.

    Blocking. Asking for the configuration never creates a topic, as asking for metadata may.

    Raises:
        TimeoutError: No response came within *answer_s* seconds and one more.
    """
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    if not resources:
        return {}
    asking: Any = admin  # its stubs do not name the results of futures
    found: dict[str, Mapping[str, str | None] | KafkaError] = {}
    for resource, answer in asking.describe_configs(resources, request_timeout=answer_s).items():
        try:
            entries = answer.result(answer_s + 1)
        except KafkaException as error:
            found[str(resource.name)] = error.args[0]
        else:
            found[str(resource.name)] = {name: entry.value for name, entry in entries.items()}
    return found


def settings_to_check(reason: str) -> str:
    """Which settings *reason*, a client's own words, is about; where Kafka is if it does not say."""
    return _setting_named_in(reason) or _ADDRESS


def _setting_named_in(reason: str) -> str | None:
    return next((settings for sign, settings in _SETTINGS_BY_TEXT if sign in reason), None)
