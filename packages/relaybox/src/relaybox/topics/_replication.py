"""Decide how many replicas a topic gets: as many as the settings demand or the cluster allows (G37)."""

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
    """Raised when a topic cannot get the replicas that the settings demand."""

    error_code = "RELAY_REPLICATION_IMPOSSIBLE"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replication:
    """The replication of new topics."""

    #: Replicas of each partition; None for three, or the number of brokers if it is lower.
    replicas: int | None = None
    #: ``min.insync.replicas``; None for one less than ``replicas``, but at least one and at most two.
    min_isr: int | None = None

    @classmethod
    def of(cls, settings: RelaySettings) -> Self:
        """Return what ``RELAY_TOPIC_REPLICATION`` and ``RELAY_TOPIC_MIN_ISR`` demand."""
        return cls(replicas=settings.topic_replication, min_isr=settings.topic_min_isr)


DEFAULT_REPLICATION: Final = Replication()


@dataclass(frozen=True, kw_only=True, slots=True)
class Brokers:
    """The brokers of a cluster by their ids, as its metadata shows them."""

    #: Ids of the brokers that are up.
    live: frozenset[int]
    #: The live brokers, and brokers that are down but have a replica of a topic. Metadata does not show any
    #: other broker that is down.
    known: frozenset[int]

    @classmethod
    def of(cls, metadata: Any) -> Self:
        """Read the brokers from *metadata*, the result of a client's ``list_topics()`` for all topics."""
        live = frozenset(metadata.brokers)
        partitions = (each for topic in metadata.topics.values() for each in topic.partitions.values())
        return cls(live=live, known=live.union(*(each.replicas for each in partitions)))

    @property
    def absent(self) -> frozenset[int]:
        """The known brokers that are down."""
        return self.known - self.live

    @property
    def absent_named(self) -> str:
        """The known brokers that are down, as text for a message: ``broker 3``, ``brokers 2, 3``."""
        return f"broker{'s' if len(self.absent) > 1 else ''} {', '.join(map(str, sorted(self.absent)))}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The replication of a new topic on a cluster."""

    replicas: int
    min_isr: int
    brokers: Brokers

    @property
    def remedy(self) -> str:
        """What to do if Kafka refuses the plan, as the start of a sentence; empty unless brokers are down."""
        if self.replicas <= len(self.brokers.live):
            return ""
        live = len(self.brokers.live)
        absent = self.brokers.absent_named
        return f"start {absent}; or set RELAY_TOPIC_REPLICATION={live} if removed for good; or "


def replicas_for(brokers: int) -> int:
    """Return how many replicas a topic should have on a cluster of *brokers* brokers."""
    return min(_REPLICAS_MAX, brokers)


def min_isr_for(replicas: int) -> int:
    """Return the ``min.insync.replicas`` with which one of *replicas* may fail, if there are several."""
    return min(_MIN_ISR_MAX, max(1, replicas - 1))


def plan_replication(wanted: Replication, brokers: Brokers) -> Plan:
    """Decide how many replicas a topic gets.

    Raises:
        ReplicationImpossible: The cluster has fewer brokers than the settings demand replicas.
    """
    replicas = wanted.replicas or replicas_for(len(brokers.known))
    min_isr = wanted.min_isr or min_isr_for(replicas)
    shown = ", ".join(map(str, sorted(brokers.live)))
    if replicas > len(brokers.known):
        raise ReplicationImpossible(
            f"RELAY_TOPIC_REPLICATION={replicas}, but only the brokers {shown} are known; "
            "start the others, or lower the setting"
        )
    if min_isr > replicas:
        raise ReplicationImpossible(
            f"RELAY_TOPIC_MIN_ISR={min_isr}, but a topic gets {replicas} replicas on the brokers {shown}; "
            "start the others, or lower the setting"
        )
    return Plan(replicas=replicas, min_isr=min_isr, brokers=brokers)


def new_topic(name: str, partitions: int, plan: Plan, config: Mapping[str, str] = _NO_CONFIG) -> NewTopic:
    """Describe a topic to create.

    Kafka refuses a replication factor above the number of live brokers, but accepts an assignment that names
    brokers that are down; these catch up when they are up again.
    """
    configured = {_MIN_ISR: str(plan.min_isr), **config}
    if plan.replicas <= len(plan.brokers.live):
        return NewTopic(name, num_partitions=partitions, replication_factor=plan.replicas, config=configured)
    assignment = [_assignment(plan.brokers, plan.replicas, number) for number in range(partitions)]
    return NewTopic(name, num_partitions=partitions, replica_assignment=assignment, config=configured)


def new_partitions(name: str, held: Any, total: int, brokers: Brokers) -> NewPartitions:
    """Describe the growth of a topic to *total* partitions, with as many replicas as the first one has.

    Args:
        name: The topic.
        held: The topic's metadata.
        total: How many partitions the topic should have.
        brokers: The brokers of the cluster.
    """
    replicas = len(held.partitions[0].replicas)
    if replicas <= len(brokers.live):
        return NewPartitions(name, total)
    added = range(len(held.partitions), total)
    assignment = [_assignment(brokers, replicas, number) for number in added]
    return NewPartitions(name, total, replica_assignment=assignment)


def _assignment(brokers: Brokers, replicas: int, partition: int) -> list[int]:
    """Return a partition's brokers: live ones in rotation, of which the first leads, then absent ones."""
    live = sorted(brokers.live)
    turn = partition % len(live)
    return [*live[turn:], *live[:turn], *sorted(brokers.absent)][:replicas]


def warn_about_few_brokers(
    bootstrap_servers: str, topics: Iterable[str], plan: Plan, wanted: Replication
) -> None:
    """Warn that topics get fewer replicas than they could, because brokers that are down are not known.

    On a cluster without replicated topics, only the addresses in KAFKA_HOST show that there are such brokers.
    """
    addresses = len(set(bootstrap_servers.split(",")))
    if wanted.replicas is None and plan.replicas < replicas_for(addresses):
        _log.warning(
            "topics get fewer replicas than KAFKA_HOST has brokers: start all brokers before topics are "
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
