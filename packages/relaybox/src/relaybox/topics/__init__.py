"""Topics: create them, replicate them as the cluster allows, read their state, watch their partitions."""

from relaybox.topics._ensure import (
    BrokerAway,
    TopicsNotReady,
    check_replicas,
    ensure_topics,
    raise_message_limit,
)
from relaybox.topics._partition_watch import PartitionWatch, UnavailablePartitions
from relaybox.topics._replication import (
    DEFAULT_REPLICATION,
    Brokers,
    Plan,
    Replication,
    ReplicationImpossible,
    min_isr_for,
    new_partitions,
    new_topic,
    plan_replication,
    replicas_for,
    warn_about_few_brokers,
    warn_about_single_replicas,
)
from relaybox.topics._states import ClusterState, TopicState, cluster_state

__all__ = (
    "DEFAULT_REPLICATION",
    "BrokerAway",
    "Brokers",
    "ClusterState",
    "PartitionWatch",
    "Plan",
    "Replication",
    "ReplicationImpossible",
    "TopicState",
    "TopicsNotReady",
    "UnavailablePartitions",
    "check_replicas",
    "cluster_state",
    "ensure_topics",
    "min_isr_for",
    "new_partitions",
    "new_topic",
    "plan_replication",
    "raise_message_limit",
    "replicas_for",
    "warn_about_few_brokers",
    "warn_about_single_replicas",
)
