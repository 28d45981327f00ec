"""What Kafka's errors mean, which setting to check, and requests that several packages make.

Each set of error codes below has one meaning; the packages decide by them and have no sets of their own.
"""

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
    "FORBIDDEN",
    "RECORD_REJECTED",
    "STALE_METADATA",
    "TOPIC_CHARS_MAX",
    "UNAUTHORIZED",
    "UNKNOWN_TOPIC",
    "UNREACHABLE",
    "ConnectionDiagnosis",
    "retry_on_stale_metadata",
    "settings_to_check",
    "topic_configs",
    "wait_for_leaders",
)

T = TypeVar("T")
# librdkafka's own codes begin with an underscore; they are public all the same.
# ruff: noqa: SLF001
#: No broker was reached, or not with the configured protocol. Retry; check the address and TLS.
UNREACHABLE: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._SSL,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)
#: The account lacks a permission on topics or the cluster. Waiting does not help; grant it. A permission on
#: the group is not meant: librdkafka looks up the coordinator also for readers that assign their partitions.
UNAUTHORIZED: Final = frozenset(
    {KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED}
)
#: The account is unknown, its password is wrong, or it lacks a permission.
FORBIDDEN: Final = UNAUTHORIZED | {KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION}
_UNKNOWN: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}
)
#: The topic or partition does not exist, as far as this broker knows, or the topic's name is invalid.
UNKNOWN_TOPIC: Final = _UNKNOWN | {KafkaError.TOPIC_EXCEPTION}
#: Characters of a topic's name: https://kafka.apache.org/documentation/#topicconfigs
TOPIC_CHARS_MAX: Final = 249
#: A topic is new or its leader has changed, and not every broker knows that yet. Retry soon.
STALE_METADATA: Final = _UNKNOWN | {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._NOENT,  # no leader was found
    KafkaError._TIMED_OUT,  # no leader was found within the request's time limit
}
#: The broker rejects this record; another record may be accepted. Change the record or the topic.
RECORD_REJECTED: Final = UNKNOWN_TOPIC | {
    KafkaError.INVALID_MSG,
    KafkaError.INVALID_MSG_SIZE,
    KafkaError.INVALID_RECORD,
    KafkaError.INVALID_TIMESTAMP,
    KafkaError.MSG_SIZE_TOO_LARGE,
    KafkaError.POLICY_VIOLATION,
    KafkaError.RECORD_LIST_TOO_LARGE,
    KafkaError._INVALID_ARG,
}
_RETRY_PAUSE_S: Final = 0.02
_RESPONSE_S_MIN: Final = 0.1
#: Time limit of one request. A request that librdkafka began while no leader was known searched for a leader
#: until its limit of 30 s, while another request had its response at once.
_RESPONSE_S_MAX: Final = 5.0

#: Parts of librdkafka's error texts, and the settings to check; the first match counts.
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
_ADDRESS_SETTINGS: Final = "KAFKA_HOST, KAFKA_PORT and KAFKA_SECURITY_PROTOCOL"


class ConnectionDiagnosis:
    """Find out why one client cannot connect; :meth:`record` is the client's ``error_cb``.

    A failed call says only "transport failure", for a stopped broker, a wrong password and an untrusted
    certificate alike. The callback gets the cause, before or after the call.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._servers = bootstrap_servers
        self._error: KafkaError | None = None

    def record(self, error: KafkaError) -> None:
        """Keep *error*, unless only the recorded error names a setting."""
        if self._error is None or _settings_in(error.str()) or not _settings_in(self._error.str()):
            self._error = error

    def reset(self) -> None:
        """Drop the recorded error, because the client has had a response."""
        self._error = None

    @property
    def reason(self) -> str:
        """Librdkafka's text for the recorded error."""
        return "no response in time" if self._error is None else self._error.str()

    def message(self, error: KafkaError | None = None) -> str:
        """Return the address, the reason and the settings to check.

        *error* is the error of the failed call; it is recorded if it is the first, or the first to name a
        setting.
        """
        if error is not None and (
            self._error is None or (_settings_in(error.str()) and not _settings_in(self._error.str()))
        ):
            self._error = error
        settings = settings_to_check(self.reason)
        return f"Kafka cannot be reached at {self._servers}: {self.reason}; check {settings}"


def retry_on_stale_metadata(request: Callable[[], T], give_up_at_s: Callable[[], float]) -> T:
    """Return the result of *request*, repeated while it fails with a code of :data:`STALE_METADATA`.

    Blocking. *give_up_at_s* returns a time of ``time.monotonic()``, which may change between the attempts.

    Raises:
        KafkaException: The metadata was still stale at that time, or *request* failed in another way.
    """
    while True:
        try:
            return request()
        except KafkaException as error:
            if error.args[0].code() not in STALE_METADATA or time.monotonic() >= give_up_at_s():
                raise
        Event().wait(_RETRY_PAUSE_S)


def wait_for_leaders(admin: AdminClient, topics: Mapping[str, int], until_s: float) -> None:
    """Return once each partition of new topics has a leader that knows of it.

    Blocking. Call this after creating topics: until then other clients may be told that they do not exist.

    Args:
        admin: The client.
        topics: Number of partitions of each topic.
        until_s: The latest time, of ``time.monotonic()``.

    Raises:
        KafkaException: A leader is missing at *until_s*, or this account may not ask.
        TimeoutError: A request did not end.
    """
    ends = {
        TopicPartition(name, number): OffsetSpec.latest()
        for name, count in topics.items()
        for number in range(count)
    }
    client: Any = admin  # its stubs do not name the results of futures

    def request() -> None:
        response_s = min(_RESPONSE_S_MAX, max(_RESPONSE_S_MIN, until_s - time.monotonic()))
        for future in client.list_offsets(ends, request_timeout=response_s).values():
            future.result(response_s + 1)

    retry_on_stale_metadata(request, lambda: until_s)


def topic_configs(
    admin: AdminClient, topics: Iterable[str], response_s: float
) -> dict[str, Mapping[str, str | None] | KafkaError]:
    """Return the configuration of each of *topics*, or the error with which the brokers refuse it.

    Blocking. A request for the configuration never creates a topic, as a request for metadata may.

    Raises:
        TimeoutError: No response came within *response_s* seconds and one more.
    """
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in topics]
    if not resources:
        return {}
    client: Any = admin  # its stubs do not name the results of futures
    found: dict[str, Mapping[str, str | None] | KafkaError] = {}
    for resource, future in client.describe_configs(resources, request_timeout=response_s).items():
        try:
            entries = future.result(response_s + 1)
        except KafkaException as error:
            found[str(resource.name)] = error.args[0]
        else:
            found[str(resource.name)] = {name: entry.value for name, entry in entries.items()}
    return found


def settings_to_check(reason: str) -> str:
    """Return the settings that *reason*, a text of librdkafka, points to; the address if none."""
    return _settings_in(reason) or _ADDRESS_SETTINGS


def _settings_in(reason: str) -> str | None:
    return next((settings for text, settings in _SETTINGS_BY_TEXT if text in reason), None)
