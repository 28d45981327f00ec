"""Create topics, and raise the limit of the size of their messages."""

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
    ResourceType,  # pyright: ignore[reportPrivateImportUsage]
)
from confluent_kafka.cimpl import NewTopic

from relaybox.errors import RelayboxError
from relaybox.kafka import UNREACHABLE, ConnectionDiagnosis, topic_configs, wait_for_leaders
from relaybox.settings import KafkaSettings
from relaybox.topics._replication import (
    DEFAULT_REPLICATION,
    Brokers,
    Plan,
    Replication,
    ReplicationImpossible,
    new_topic,
    plan_replication,
    warn_about_few_brokers,
    warn_about_single_replicas,
)

__all__ = (
    "BrokerAway",
    "TopicsNotReady",
    "admin_client",
    "check_replicas",
    "ensure_topics",
    "metadata_of",
    "raise_message_limit",
)

#: Time limit of one request, so that a relay that gets SIGTERM meanwhile exits within 10 s (G27).
_RESPONSE_S: Final = 8.0
_RESPONSE_S_MIN: Final = 0.5
_MESSAGE_LIMIT: Final = "max.message.bytes"


class TopicsNotReady(RelayboxError):
    """Raised when a topic does not exist and cannot be created, or its message limit cannot be raised."""

    error_code = "TOPICS_NOT_READY"


class BrokerAway(TopicsNotReady):
    """Raised when no broker responds, so that it is not known which topics exist; retry later."""


async def ensure_topics(
    settings: KafkaSettings,
    topics: Iterable[str],
    *,
    partitions: int = 8,
    replication: Replication = DEFAULT_REPLICATION,
) -> list[str]:
    """Create those of *topics* that do not exist, and return the names of the created topics.

    After the creation, this function waits until each partition of the new topics has a leader: until then, a
    relay would count a failed attempt for each row of the topic. It stops waiting about 8 s after its start
    even if a leader is missing. If too few brokers are up, brokers that are down get replicas too. These
    brokers copy the records when they are up again.

    An existing topic is not changed: if it got more partitions, later events of a key could go to another
    partition, which breaks the order of the key.

    Args:
        settings: Address of the brokers, and how to authenticate.
        topics: Names of topics that must exist.
        partitions: Number of partitions of each new topic.
        replication: Replication of each new topic.

    Raises:
        BrokerAway: No broker responds.
        TopicsNotReady: The broker refuses to create a topic, the cluster has fewer brokers than
            *replication* requires, or the Kafka settings are invalid.
    """
    return await asyncio.to_thread(_ensure, settings, sorted(set(topics)), partitions, replication)


async def check_replicas(settings: KafkaSettings, topics: Iterable[str]) -> None:
    """Log a warning for each of *topics* with a single replica, if the cluster has several brokers.

    Raises:
        BrokerAway: No broker responds.
        TopicsNotReady: The Kafka settings are invalid.
    """
    await asyncio.to_thread(_check_replicas, settings, sorted(set(topics)))


async def raise_message_limit(settings: KafkaSettings, topic: str, bytes_max: int) -> int:
    """Raise ``max.message.bytes`` of *topic* to *bytes_max*, and return the previous limit in bytes.

    A limit that is already higher is not changed, because rows of the outbox may be larger than *bytes_max*.

    Raises:
        BrokerAway: No broker responds.
        TopicsNotReady: The topic does not exist, the broker refuses the change, or the Kafka settings are
            invalid.
    """
    return await asyncio.to_thread(_raise_limit, settings, topic, bytes_max)


def _raise_limit(settings: KafkaSettings, topic: str, bytes_max: int) -> int:
    diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
    with admin_client(settings, diagnosis) as admin:
        try:
            return _raise_limit_by(admin, topic, bytes_max)
        except (KafkaException, TimeoutError) as error:
            admin.poll(0)
            reason = error.args[0] if isinstance(error, KafkaException) else None
            if reason is None or reason.code() in UNREACHABLE:
                raise BrokerAway(diagnosis.message(reason)) from error
            raise TopicsNotReady(
                f"{_MESSAGE_LIMIT} of topic {topic!r} cannot be raised: {reason.str()}; "
                "check the topic's name and the rights of KAFKA_SASL_USERNAME"
            ) from error


def _raise_limit_by(admin: Any, topic: str, bytes_max: int) -> int:
    config = topic_configs(admin, [topic], _RESPONSE_S)[topic]
    if isinstance(config, KafkaError):
        raise KafkaException(config)
    before = int(config[_MESSAGE_LIMIT] or 0)
    entry = ConfigEntry(_MESSAGE_LIMIT, str(bytes_max), incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    if bytes_max > before:
        [changed] = admin.incremental_alter_configs([change], request_timeout=_RESPONSE_S).values()
        changed.result(_RESPONSE_S + 1)
    return before


def admin_client(settings: KafkaSettings, diagnosis: ConnectionDiagnosis) -> Any:
    """Create an admin client that passes its errors to *diagnosis*.

    The return type is Any, because the client's type stubs do not contain the types of its results.

    Raises:
        TopicsNotReady: The Kafka settings are invalid.
    """
    conf: dict[str, Any] = {**settings.client_config(), "log_level": 0, "error_cb": diagnosis.record}
    try:
        return AdminClient(conf)
    except KafkaException as error:
        raise TopicsNotReady(diagnosis.message(error.args[0])) from error


def _check_replicas(settings: KafkaSettings, topics: list[str]) -> None:
    diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
    with admin_client(settings, diagnosis) as admin:
        warn_about_single_replicas(metadata_of(admin, diagnosis), topics)


def _ensure(
    settings: KafkaSettings, topics: list[str], partitions: int, replication: Replication
) -> list[str]:
    diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
    until_s = time.monotonic() + _RESPONSE_S
    with admin_client(settings, diagnosis) as admin:
        metadata = metadata_of(admin, diagnosis)
        missing = [name for name in topics if name not in metadata.topics]
        if not missing:
            return []
        try:
            plan = plan_replication(replication, Brokers.of(metadata))
        except ReplicationImpossible as error:
            raise TopicsNotReady(f"topic {missing[0]!r} cannot be created: {error}") from error
        warn_about_few_brokers(settings.bootstrap_servers, missing, plan, replication)
        wanted = [new_topic(name, partitions, plan) for name in missing]
        created = _created(admin, diagnosis, wanted, plan, until_s)
        # The topics exist, so errors are ignored: the account may have no right to describe them.
        with suppress(KafkaException, TimeoutError):
            wait_for_leaders(admin, dict.fromkeys(created, partitions), until_s)
        return created


def metadata_of(admin: Any, diagnosis: ConnectionDiagnosis) -> Any:
    """Return the metadata of all topics that this account may describe, and of the brokers that are up.

    Raises:
        BrokerAway: No broker responds.
    """
    try:
        return admin.list_topics(timeout=_RESPONSE_S)
    except KafkaException as error:
        admin.poll(0)
        raise BrokerAway(diagnosis.message(error.args[0])) from error


def _created(
    admin: Any, diagnosis: ConnectionDiagnosis, wanted: list[NewTopic], plan: Plan, until_s: float
) -> list[str]:
    created: list[str] = []
    response_s = max(_RESPONSE_S_MIN, until_s - time.monotonic())
    for name, response in admin.create_topics(wanted, request_timeout=response_s).items():
        try:
            response.result(response_s + 1)
        except KafkaException as error:
            reason: KafkaError = error.args[0]
            if reason.code() != KafkaError.TOPIC_ALREADY_EXISTS:
                admin.poll(0)
                raise _not_ready(diagnosis, name, reason, plan) from error
        except TimeoutError as error:
            admin.poll(0)
            raise _not_ready(diagnosis, name, None, plan) from error
        else:
            created.append(name)
    return created


def _not_ready(
    diagnosis: ConnectionDiagnosis, name: str, reason: KafkaError | None, plan: Plan
) -> TopicsNotReady:
    if reason is None or reason.code() in UNREACHABLE:
        return BrokerAway(diagnosis.message(reason))
    return TopicsNotReady(
        f"topic {name!r} cannot be created: {reason.str()}; {plan.remedy}create it by hand with an "
        "account that has the right CREATE"
    )
