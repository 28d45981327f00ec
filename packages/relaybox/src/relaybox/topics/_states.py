"""Read the current state of topics from the brokers: replicas, leaders, limits."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError

from relaybox.kafka import UNREACHABLE, ConnectionDiagnosis, topic_configs
from relaybox.settings import KafkaSettings
from relaybox.topics._ensure import BrokerAway, admin_client, metadata_of
from relaybox.topics._replication import Brokers

__all__ = (
    "ClusterState",
    "TopicState",
    "cluster_state",
)

_RESPONSE_S: Final = 8.0
_BYTES_MAX: Final = "max.message.bytes"
_MIN_ISR: Final = "min.insync.replicas"


@dataclass(frozen=True, kw_only=True, slots=True)
class TopicState:
    """The state of one topic."""

    #: Number of partitions.
    partitions: int
    #: Number of replicas of the partition with the fewest replicas.
    replicas: int
    #: ``min.insync.replicas``; None if this account may not read the topic's configuration.
    min_isr: int | None
    #: ``max.message.bytes``; None if this account may not read the topic's configuration.
    bytes_max: int | None
    #: Numbers of partitions without a leader, which accept neither writes nor reads.
    offline: tuple[int, ...]
    #: Numbers of other partitions that accept no writes, because they have fewer replicas in sync than
    #: ``min_isr``.
    below_min_isr: tuple[int, ...]
    #: Numbers of the remaining partitions with a replica that is not in sync; they accept writes.
    under_replicated: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterState:
    """The brokers of a cluster, and the state of the requested topics."""

    brokers: Brokers
    #: State by name; topics that do not exist are left out.
    topics: Mapping[str, TopicState]


async def cluster_state(settings: KafkaSettings, topics: Iterable[str]) -> ClusterState:
    """Read the state of the brokers and of *topics*; topics that do not exist are left out.

    Raises:
        BrokerAway: No broker responds.
        TopicsNotReady: The Kafka settings are invalid.
    """
    return await asyncio.to_thread(_cluster_state, settings, sorted(set(topics)))


def _cluster_state(settings: KafkaSettings, topics: list[str]) -> ClusterState:
    diagnosis = ConnectionDiagnosis(settings.bootstrap_servers)
    with admin_client(settings, diagnosis) as admin:
        metadata = metadata_of(admin, diagnosis)
        held = {name: metadata.topics[name] for name in topics if name in metadata.topics}
        configs = _configs(admin, diagnosis, list(held))
    states = {name: _state(topic.partitions, configs[name]) for name, topic in held.items()}
    return ClusterState(brokers=Brokers.of(metadata), topics=states)


def _configs(admin: Any, diagnosis: ConnectionDiagnosis, topics: list[str]) -> dict[str, Mapping[str, int]]:
    """Return ``min.insync.replicas`` and ``max.message.bytes`` of each topic.

    The mapping of a topic is empty if the brokers refuse to return its configuration to this account.

    Raises:
        BrokerAway: No broker responds.
    """
    found: dict[str, Mapping[str, int]] = {}
    try:
        configs = topic_configs(admin, topics, _RESPONSE_S)
    except TimeoutError as error:
        raise BrokerAway(diagnosis.message()) from error
    for topic, config in configs.items():
        if isinstance(config, KafkaError):
            if config.code() in UNREACHABLE:
                admin.poll(0)
                raise BrokerAway(diagnosis.message(config))
            found[topic] = {}
        else:
            found[topic] = {name: int(config[name] or 0) for name in (_BYTES_MAX, _MIN_ISR)}
    return found


def _state(partitions: Mapping[int, Any], config: Mapping[str, int]) -> TopicState:
    min_isr = config.get(_MIN_ISR)
    offline = {number for number, each in partitions.items() if each.leader < 0}
    # Kafka requires at most as many replicas in sync as the partition has (Partition.effectiveMinIsr).
    below = {
        number
        for number, each in partitions.items()
        if len(each.isrs) < min(min_isr or 1, len(each.replicas))
    } - offline
    behind = {number for number, each in partitions.items() if len(each.isrs) < len(each.replicas)}
    return TopicState(
        partitions=len(partitions),
        replicas=min(len(each.replicas) for each in partitions.values()),
        min_isr=min_isr,
        bytes_max=config.get(_BYTES_MAX),
        offline=tuple(sorted(offline)),
        below_min_isr=tuple(sorted(below)),
        under_replicated=tuple(sorted(behind - below - offline)),
    )
