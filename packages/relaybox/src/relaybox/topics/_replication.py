"""Decide how many replicas a topic gets: as the settings say, or up to three as the cluster allows (G37)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Self

import structlog
from confluent_kafka.cimpl import NewPartitions, NewTopic

from relaybox.errors import RelayboxError
from relaybox.settings import RelaySettings

__all__ = (
    "DEFAULT_REPLICATION",
    "Brokers",
    "Plan",
    "Replication",
    "ReplicationImpossible",
    "min_isr_for",
    "new_partitions",
    "new_topic",
    "plan_replication",
    "replicas_for",
    "warn_about_few_brokers",
    "warn_about_single_replicas",
)

_REPLICAS_MAX: Final = 3
_MIN_ISR_MAX: Final = 2
_MIN_ISR: Final = "min.insync.replicas"
_NO_CONFIG: Final[Mapping[str, str]] = MappingProxyType({})
_log: Final = structlog.get_logger(__name__)


class ReplicationImpossible(RelayboxError):
    """Raised when the cluster does not allow the required replication, see :func:`plan_replication`."""

    error_code = "RELAY_REPLICATION_IMPOSSIBLE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replication:
    """The replication of new topics."""

    #: Replicas of each partition; None: three, or the number of brokers if there are fewer.
    replicas: int | None = None
    #: ``min.insync.replicas``; None: one less than ``replicas``, but at least one and at most two.
    min_isr: int | None = None

    @classmethod
    def of(cls, settings: RelaySettings) -> Self:
        """Return the replication of ``RELAY_TOPIC_REPLICATION`` and ``RELAY_TOPIC_MIN_ISR``."""
        return cls(replicas=settings.topic_replication, min_isr=settings.topic_min_isr)


#: Replication that depends on the number of brokers alone.
DEFAULT_REPLICATION: Final = Replication()


@dataclass(frozen=True, kw_only=True, slots=True)
class Brokers:
    """Ids of the brokers of a cluster, as far as its metadata contains them."""

    #: Ids of the brokers that are up.
    live: frozenset[int]
    #: Ids of the live brokers, and of brokers that are down and have a replica of a topic. Metadata does not
    #: contain other brokers that are down.
    known: frozenset[int]

    @classmethod
    def of(cls, metadata: Any) -> Self:
        """Read the brokers from *metadata*, the result of a client's ``list_topics()`` for all topics."""
        live = frozenset(metadata.brokers)
        partitions = (each for topic in metadata.topics.values() for each in topic.partitions.values())
        return cls(live=live, known=live.union(*(each.replicas for each in partitions)))

    @property
    def absent(self) -> frozenset[int]:
        """Ids of the known brokers that are down."""
        return self.known - self.live

    @property
    def absent_named(self) -> str:
        """Text for messages with the known brokers that are down: ``broker 3`` or ``brokers 2, 3``."""
        return f"broker{'s' if len(self.absent) > 1 else ''} {', '.join(map(str, sorted(self.absent)))}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The decided replication of a new topic."""

    #: Replicas of each partition.
    replicas: int
    #: ``min.insync.replicas``.
    min_isr: int
    brokers: Brokers

    @property
    def remedy(self) -> str:
        """Advice for the error message if Kafka refuses to create the topic; empty if enough brokers are up.

        The text ends in ``or``, because the message continues with other advice.
        """
        if self.replicas <= len(self.brokers.live):
            return ""
        live = len(self.brokers.live)
        absent = self.brokers.absent_named
        return f"start {absent}; or set RELAY_TOPIC_REPLICATION={live} if removed for good; or "


def replicas_for(brokers: int) -> int:
    """Return the default number of replicas of a topic: three, or *brokers*, their number, if it is lower."""
    return min(_REPLICAS_MAX, brokers)


def min_isr_for(replicas: int) -> int:
    """Return the default ``min.insync.replicas`` of a topic with *replicas* replicas.

    The result is *replicas* - 1, so that writes continue if one replica fails, but at most 2 and at least 1.
    With a single replica, writes stop if this replica fails.
    """
    return min(_MIN_ISR_MAX, max(1, replicas - 1))


def plan_replication(wanted: Replication, brokers: Brokers) -> Plan:
    """Decide the replication of a topic: the numbers of *wanted*, and the defaults for those that are None.

    Raises:
        ReplicationImpossible: *wanted* requires more replicas than there are known brokers, or
            ``min.insync.replicas`` would be higher than the number of replicas.
    """
    replicas = wanted.replicas or replicas_for(len(brokers.known))
    min_isr = wanted.min_isr or min_isr_for(replicas)
    shown = ", ".join(map(str, sorted(brokers.live)))
    if replicas > len(brokers.known):
        raise ReplicationImpossible(
            f"RELAY_TOPIC_REPLICATION={replicas}, but only the brokers {shown} are up; "
            "start the others, or lower RELAY_TOPIC_REPLICATION"
        )
    if min_isr > replicas:
        raise ReplicationImpossible(
            f"RELAY_TOPIC_MIN_ISR={min_isr}, but a topic gets {replicas} replicas on the brokers {shown}; "
            "start the other brokers, or lower the setting"
        )
    return Plan(replicas=replicas, min_isr=min_isr, brokers=brokers)


def new_topic(name: str, partitions: int, plan: Plan, config: Mapping[str, str] = _NO_CONFIG) -> NewTopic:
    """Return the request to create a topic.

    If enough brokers are up, the request has a replication factor. Kafka refuses a factor above the number of
    brokers that are up, but accepts a list of brokers for each partition that contains brokers that are down.
    So if fewer brokers are up, the request has such lists. A broker that is down copies the records when it
    is up again.

    Args:
        name: Name of the topic.
        partitions: Number of partitions.
        plan: The decided replication.
        config: More settings of the topic; they replace ``min.insync.replicas`` of *plan* if they contain it.
    """
    configured = {_MIN_ISR: str(plan.min_isr), **config}
    if plan.replicas <= len(plan.brokers.live):
        return NewTopic(name, num_partitions=partitions, replication_factor=plan.replicas, config=configured)
    assignment = [_assignment(plan.brokers, plan.replicas, number) for number in range(partitions)]
    return NewTopic(name, num_partitions=partitions, replica_assignment=assignment, config=configured)


def new_partitions(name: str, held: Any, total: int, brokers: Brokers) -> NewPartitions:
    """Return the request to add partitions to a topic, with as many replicas as partition 0 has.

    Args:
        name: Name of the topic.
        held: The topic's metadata, from a client's ``list_topics()``.
        total: Number of partitions afterwards.
        brokers: The brokers of the cluster.
    """
    replicas = len(held.partitions[0].replicas)
    if replicas <= len(brokers.live):
        return NewPartitions(name, total)
    added = range(len(held.partitions), total)
    assignment = [_assignment(brokers, replicas, number) for number in added]
    return NewPartitions(name, total, replica_assignment=assignment)


def _assignment(brokers: Brokers, replicas: int, partition: int) -> list[int]:
    """Return the ids of the brokers that get the replicas of a partition.

    Brokers that are up come first, then brokers that are down. Kafka prefers the first broker as the leader,
    so the order of the brokers that are up rotates with the number of the partition.
    """
    live = sorted(brokers.live)
    turn = partition % len(live)
    return [*live[turn:], *live[:turn], *sorted(brokers.absent)][:replicas]


def warn_about_few_brokers(
    bootstrap_servers: str, topics: Iterable[str], plan: Plan, wanted: Replication
) -> None:
    """Log a warning if *topics* get fewer replicas than a cluster with all brokers of KAFKA_HOST would allow.

    This happens if a broker is down: the metadata of a cluster without replicated topics contains no broker
    that is down. Only the number of addresses in KAFKA_HOST shows that the cluster has more brokers.

    Args:
        bootstrap_servers: Addresses of KAFKA_HOST, comma-separated.
        topics: Names of the topics to create.
        plan: The decided replication.
        wanted: The replication in the settings; no warning if its ``replicas`` is not None.
    """
    addresses = len(set(bootstrap_servers.split(",")))
    if wanted.replicas is None and plan.replicas < replicas_for(addresses):
        _log.warning(
            "topics get fewer replicas than KAFKA_HOST has brokers; start all brokers before topics are "
            "created, or raise the replication of these topics afterwards",
            topics=sorted(topics),
            replicas=plan.replicas,
            brokers=sorted(plan.brokers.live),
            addresses=addresses,
        )


def warn_about_single_replicas(metadata: Any, topics: Iterable[str]) -> None:
    """Log a warning for each of *topics* with a single replica, if the cluster has several brokers.

    Args:
        metadata: The result of a client's ``list_topics()`` for all topics.
        topics: Names of topics; those that do not exist are left out.
    """
    brokers = Brokers.of(metadata)
    for name in sorted(topics):
        held = metadata.topics.get(name)
        if held is None or len(brokers.known) == 1:
            continue
        if any(len(partition.replicas) == 1 for partition in held.partitions.values()):
            _log.warning(
                "a topic has one replica on a cluster of several brokers: its keys wait while that broker is "
                "down, and its events are lost with its disk; see `relaybox topics check`",
                topic=name,
                brokers=len(brokers.known),
            )
