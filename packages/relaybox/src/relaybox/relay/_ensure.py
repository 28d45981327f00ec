"""Create the topics that events go to, and raise the limit of their messages."""

import asyncio
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,  # pyright: ignore[reportPrivateImportUsage] - documented there
    ConfigEntry,  # pyright: ignore[reportPrivateImportUsage]
    ConfigResource,  # pyright: ignore[reportPrivateImportUsage]
    NewTopic,  # pyright: ignore[reportPrivateImportUsage]
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)

from relaybox.kafka import Complaints, wait_until_led
from relaybox.relay._errors import RelayError
from relaybox.settings import KafkaSettings

__all__ = ("BrokerAway", "TopicsNotReady", "ensure_topics", "raise_message_limit")

#: A relay that is told to stop meanwhile still ends within 10 s (G27).
_ANSWER_S: Final = 8.0
_MESSAGE_LIMIT: Final = "max.message.bytes"
#: What the client says when nobody answers, one of them in the words "waiting for controller".
_AWAY: Final = frozenset(
    {
        KafkaError._TIMED_OUT,  # noqa: SLF001 - librdkafka's local codes are spelled so
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
    }
)


class TopicsNotReady(RelayError):
    """Raised when a topic could be neither found nor created, or its limit not raised."""

    error_code = "TOPICS_NOT_READY"


class BrokerAway(TopicsNotReady):
    """Raised when no broker answers: what exists there is not known."""


async def ensure_topics(settings: KafkaSettings, topics: Iterable[str], *, partitions: int = 8) -> list[str]:
    """Create those of *topics* that do not exist, with *partitions*; returns the created ones.

    The brokers know of them then, as far as time allows: a row for a topic that they do not show yet
    would be charged an attempt.

    One that exists stays as it is: raising its number of partitions would send later events of a
    key elsewhere and break its order. Replication is the broker's default.

    Raises:
        BrokerAway: the broker does not answer.
        TopicsNotReady: it refuses.
    """
    return await asyncio.to_thread(_ensure, settings, sorted(set(topics)), partitions)


async def raise_message_limit(settings: KafkaSettings, topic: str, bytes_max: int) -> int:
    """Raise ``max.message.bytes`` of *topic* to *bytes_max*; return the limit before.

    A limit that is as high or higher stays: rows of the outbox may need it.

    Raises:
        BrokerAway: The broker does not answer.
        TopicsNotReady: The topic does not exist, or the broker refuses.
    """
    return await asyncio.to_thread(_raise_limit, settings, topic, bytes_max)


def _raise_limit(settings: KafkaSettings, topic: str, bytes_max: int) -> int:
    complaints = Complaints(settings.bootstrap_servers)
    with _admin(settings, complaints) as admin:
        try:
            return _raise_limit_by(admin, topic, bytes_max)
        except (KafkaException, TimeoutError) as error:
            admin.poll(0)
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if reason is None or reason.code() in _AWAY:
                raise BrokerAway(complaints.sentence(reason)) from error
            raise TopicsNotReady(
                f"{_MESSAGE_LIMIT} of topic {topic!r} cannot be raised: {reason.str()}; "
                "check the topic's name and the rights of KAFKA_SASL_USERNAME"
            ) from error


def _raise_limit_by(admin: Any, topic: str, bytes_max: int) -> int:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entry = ConfigEntry(_MESSAGE_LIMIT, str(bytes_max), incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    [described] = admin.describe_configs([resource], request_timeout=_ANSWER_S).values()
    before = int(described.result(_ANSWER_S + 1)[_MESSAGE_LIMIT].value)
    if bytes_max > before:
        [changed] = admin.incremental_alter_configs([change], request_timeout=_ANSWER_S).values()
        changed.result(_ANSWER_S + 1)
    return before


def _admin(settings: KafkaSettings, complaints: Complaints) -> Any:
    """Create an admin client; untyped, because its stubs do not name the results of its futures."""
    conf: dict[str, Any] = {**settings.client(), "log_level": 0, "error_cb": complaints.note}
    try:
        return AdminClient(conf)
    except KafkaException as error:
        raise TopicsNotReady(complaints.sentence(error.args[0])) from error


def _ensure(settings: KafkaSettings, topics: list[str], partitions: int) -> list[str]:
    complaints = Complaints(settings.bootstrap_servers)
    with _admin(settings, complaints) as admin:
        return _ensure_by(admin, complaints, topics, partitions)


def _ensure_by(admin: Any, complaints: Complaints, topics: list[str], partitions: int) -> list[str]:
    created: list[str] = []
    until_s = time.monotonic() + _ANSWER_S
    wanted = [NewTopic(name, num_partitions=partitions) for name in topics]
    for name, answer in admin.create_topics(wanted, request_timeout=_ANSWER_S).items():
        try:
            answer.result(_ANSWER_S + 1)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                admin.poll(0)
                raise _not_ready(complaints, name, reason) from error
        except TimeoutError as error:
            admin.poll(0)
            raise _not_ready(complaints, name, None) from error
        else:
            created.append(name)
    # Whoever may create topics but not look at them has created them; what is late is told when it is used.
    with suppress(KafkaException, TimeoutError):
        wait_until_led(admin, dict.fromkeys(created, partitions), until_s)
    return created


def _not_ready(complaints: Complaints, name: str, reason: KafkaError | None) -> TopicsNotReady:
    if reason is None or reason.code() in _AWAY:
        return BrokerAway(complaints.sentence(reason))
    return TopicsNotReady(f"topic {name!r} cannot be created: {reason.str()}; create it by hand")
