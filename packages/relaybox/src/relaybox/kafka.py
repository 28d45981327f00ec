"""Classify Kafka's errors, name the setting to check, and make requests that several packages need.

The sets of error codes are defined only here, so that all packages react to an error in the same way.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from operator import methodcaller
from threading import Event
from typing import Any, Final, ParamSpec, TypeVar

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
    "CallThreads",
    "ConnectionDiagnosis",
    "headers_of",
    "partition_of",
    "retry_on_stale_metadata",
    "settings_to_check",
    "topic_configs",
    "wait_for_leaders",
)

P = ParamSpec("P")
T = TypeVar("T")
# The names of librdkafka's own codes begin with an underscore, although they are public.
# ruff: noqa: SLF001
#: No broker was reached, or a broker does not use the configured protocol. Retry; check the address and TLS.
UNREACHABLE: Final = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._SSL,
        KafkaError._TIMED_OUT,
        KafkaError._TRANSPORT,
    }
)
#: The account lacks a permission on topics or the cluster. Grant the permission; retries fail again.
#: GROUP_AUTHORIZATION_FAILED is not in this set, because brokers send it also to readers that need no group.
UNAUTHORIZED: Final = frozenset(
    {KafkaError.CLUSTER_AUTHORIZATION_FAILED, KafkaError.TOPIC_AUTHORIZATION_FAILED}
)
#: The account is unknown, its password is wrong, or it lacks a permission.
FORBIDDEN: Final = UNAUTHORIZED | {KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._AUTHENTICATION}
_UNKNOWN: Final = frozenset(
    {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}
)
#: The topic or partition does not exist, or this broker does not know it yet, or the name is invalid.
UNKNOWN_TOPIC: Final = _UNKNOWN | {KafkaError.TOPIC_EXCEPTION}
#: Maximum length of a topic's name: https://kafka.apache.org/documentation/#topicconfigs
TOPIC_CHARS_MAX: Final = 249
#: A call that takes longer than this hangs: the time limits of the requests in one call of the relay add up
#: to less.
_HUNG_S: Final = 60.0
#: Calls ``message.headers()``. For a header name that is not UTF-8, confluent_kafka sets UnicodeDecodeError,
#: but also returns a result. ``methodcaller`` notices this and raises SystemError. A direct call does not
#: notice it, and the error is raised by a later call that has nothing to do with it.
_HEADERS: Final = methodcaller("headers")
#: The hash function of keys (murmur2) computes with 32 bits.
_MASK: Final = 0xFFFFFFFF
#: A topic is new or its leader has changed, and the metadata of some brokers is old. Retry after a pause.
STALE_METADATA: Final = _UNKNOWN | {
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError._NOENT,  # the partition has no leader
    KafkaError._TIMED_OUT,  # the partition had no leader within the request's time limit
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
#: The client's cached metadata has no leader for a partition, or was read before the partition existed.
_CACHE_OUTDATED: Final = frozenset(
    {KafkaError._NOENT, KafkaError._UNKNOWN_PARTITION, KafkaError._UNKNOWN_TOPIC}
)
_RETRY_PAUSE_S: Final = 0.02
_RESPONSE_S_MIN: Final = 0.1
#: Time limit of one request. A request that begins while a partition has no leader may not notice the new
#: leader until this limit (30 s were measured), although a new request would succeed at once.
_RESPONSE_S_MAX: Final = 5.0

#: Parts of librdkafka's error texts, and the settings to check for them; the first match applies.
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
    """Find out why one Kafka client cannot connect; pass :meth:`record` to the client as ``error_cb``.

    The error of a failed call does not name the cause: "transport failure" means a stopped broker, a wrong
    password or a certificate that is not trusted. librdkafka passes the cause to ``error_cb``, before or
    after the call fails.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._servers = bootstrap_servers
        self._error: KafkaError | None = None

    def record(self, error: KafkaError) -> None:
        """Record *error* as the cause, unless only the recorded error shows which setting to check."""
        if self._error is None or _settings_in(error.str()) or not _settings_in(self._error.str()):
            self._error = error

    def reset(self) -> None:
        """Remove the recorded error; call this when a broker has responded."""
        self._error = None

    @property
    def reason(self) -> str:
        """The text that librdkafka gave the recorded error; "no response in time" if none is recorded."""
        return "no response in time" if self._error is None else self._error.str()

    def message(self, error: KafkaError | None = None) -> str:
        """Return a message with the address, the reason and the settings to check.

        Args:
            error: Error of the failed call. It becomes the cause only if no error is recorded, or if it shows
                which setting to check and the recorded error does not. None: use the recorded error.
        """
        if error is not None and (
            self._error is None or (_settings_in(error.str()) and not _settings_in(self._error.str()))
        ):
            self._error = error
        settings = settings_to_check(self.reason)
        return f"Kafka cannot be reached at {self._servers}: {self.reason}; check {settings}"


def retry_on_stale_metadata(request: Callable[[], T], give_up_at_s: Callable[[], float]) -> T:
    """Call *request* until it no longer fails with a code of :data:`STALE_METADATA`; return its result.

    Blocks the thread.

    Args:
        request: The request.
        give_up_at_s: Returns the time, as ``time.monotonic()``, after which the last error is raised. Called
            after each failed attempt, because the time may change.

    Raises:
        KafkaException: *request* failed with a code that is not in :data:`STALE_METADATA`, or it failed after
            the time that *give_up_at_s* returns.
    """
    while True:
        try:
            return request()
        except KafkaException as error:
            if error.args[0].code() not in STALE_METADATA or time.monotonic() >= give_up_at_s():
                raise
        Event().wait(_RETRY_PAUSE_S)


def wait_for_leaders(admin: AdminClient, topics: Mapping[str, int], until_s: float) -> None:
    """Wait until each partition of new topics has a leader that accepts requests.

    Blocks the thread. Call this after creating topics: while a leader is missing, brokers may respond
    to other clients that the topics do not exist.

    Args:
        admin: The client.
        topics: Number of partitions of each topic.
        until_s: Latest time, as ``time.monotonic()``.

    Raises:
        KafkaException: A leader is missing at *until_s*, or this account has no right to describe the topics.
        TimeoutError: A request got no response within its time limit, which is at most 6 s.
    """
    ends = {
        TopicPartition(name, number): OffsetSpec.latest()
        for name, count in topics.items()
        for number in range(count)
    }
    client: Any = admin  # its stubs do not name the results of futures

    def request() -> None:
        response_s = min(_RESPONSE_S_MAX, max(_RESPONSE_S_MIN, until_s - time.monotonic()))
        try:
            for future in client.list_offsets(ends, request_timeout=response_s).values():
                future.result(response_s + 1)
        except KafkaException as error:
            if error.args[0].code() in _CACHE_OUTDATED:
                # The client would use its cache for minutes. A request for the topic's metadata renews it.
                for name in topics:
                    client.list_topics(name, timeout=response_s)
            raise

    retry_on_stale_metadata(request, lambda: until_s)


def topic_configs(
    admin: AdminClient, topics: Iterable[str], response_s: float
) -> dict[str, Mapping[str, str | None] | KafkaError]:
    """Read the configuration of topics.

    Blocks the thread. Unlike a request for metadata, this request never creates a topic.

    Returns:
        For each topic the values of its settings, by name; or the error: the topic does not exist, this
        account has no right to read its configuration, or no broker responded.

    Raises:
        TimeoutError: No response came within *response_s* + 1 seconds.
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


def settings_to_check(reason: str, *, otherwise: str = _ADDRESS_SETTINGS) -> str:
    """Return, for an error message, the names of the settings to check.

    Args:
        reason: An error text of librdkafka.
        otherwise: Returned for an unknown text; by default the settings of the address.
    """
    return _settings_in(reason) or otherwise


def _settings_in(reason: str) -> str | None:
    return next((settings for text, settings in _SETTINGS_BY_TEXT if text in reason), None)


class CallThreads(ThreadPoolExecutor):
    """Threads for blocking calls to Kafka; :meth:`hung` reports a call that blocks despite its timeout."""

    def __init__(self, threads_max: int, name: str) -> None:
        super().__init__(max_workers=threads_max, thread_name_prefix=name)
        #: Start of the running call by id of the thread, in ``time.monotonic()``.
        self._began_s: dict[int, float] = {}

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> "Future[T]":
        """Execute a call in one of the threads."""
        return super().submit(self._timed, fn, *args, **kwargs)

    def hung(self) -> bool:
        """Return whether a call has run for over 60 s; calls that wait for a thread do not count.

        Safe in any thread.
        """
        return time.monotonic() - min(list(self._began_s.values()), default=float("inf")) > _HUNG_S

    def _timed(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        thread = threading.get_ident()
        self._began_s[thread] = time.monotonic()
        try:
            return fn(*args, **kwargs)
        finally:
            del self._began_s[thread]


def headers_of(message: Any) -> Sequence[tuple[str, bytes | None]]:
    """Return the headers of a ``confluent_kafka.Message``; empty if the name of a header is not UTF-8.

    Call this once per message: if a name is not UTF-8, the client returns invalid objects at a second call.
    """
    try:
        return _HEADERS(message) or ()
    except SystemError:
        return ()


def partition_of(key: str | bytes, partitions: int) -> int:
    """Return the number of the partition of *key*, by murmur2 as in the relay and in Java clients.

    Args:
        key: Key of a record.
        partitions: Number of partitions of the topic.
    """
    return (_murmur2(key.encode() if isinstance(key, str) else key) & 0x7FFFFFFF) % partitions


def _murmur2(data: Sequence[int]) -> int:
    # https://github.com/apache/kafka, org.apache.kafka.common.utils.Utils.murmur2
    multiplier, length = 0x5BD1E995, len(data)
    mixed = 0x9747B28C ^ length
    for start in range(0, length - 3, 4):
        word = data[start] | data[start + 1] << 8 | data[start + 2] << 16 | data[start + 3] << 24
        word = word * multiplier & _MASK
        mixed = mixed * multiplier & _MASK ^ (word ^ word >> 24) * multiplier & _MASK
    rest = length & ~3
    for place in range(length - 1, rest - 1, -1):
        mixed ^= data[place] << 8 * (place - rest)
    if length > rest:
        mixed = mixed * multiplier & _MASK
    mixed = (mixed ^ mixed >> 13) * multiplier & _MASK
    return mixed ^ mixed >> 15
