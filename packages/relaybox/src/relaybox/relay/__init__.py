"""The message relay: rows of the outbox to Kafka, once on the topic or at least once, in order per key."""

from relaybox.relay._backoff import GiveUp, Retry, next_step
from relaybox.relay._breaker import BreakerState
from relaybox.relay._ensure import BrokerAway, TopicsNotReady, ensure_topics, raise_message_limit
from relaybox.relay._errors import (
    EnvelopeIncomplete,
    LinkDown,
    RecordRefused,
    RecordTooLarge,
    RelayError,
    RowFault,
    TopicUnknown,
)
from relaybox.relay._health import check_relay
from relaybox.relay._lanes import LANES_CHANNEL
from relaybox.relay._markers import markers_topic
from relaybox.relay._metrics import RelayCollector
from relaybox.relay._relay import Relay
from relaybox.relay._replication import Brokers, Replication, min_isr_for, replicas_for
from relaybox.relay._signals import OnSignal, Signal
from relaybox.relay._statistics import BATCH_ROWS_BOUNDS, DELAY_BOUNDS_S, Backlog, Statistics
from relaybox.relay._topic_states import ClusterState, TopicState, cluster_state
from relaybox.relay._topics_first import TopicsFirst

__all__ = (
    "BATCH_ROWS_BOUNDS",
    "DELAY_BOUNDS_S",
    "LANES_CHANNEL",
    "Backlog",
    "BreakerState",
    "BrokerAway",
    "Brokers",
    "ClusterState",
    "EnvelopeIncomplete",
    "GiveUp",
    "LinkDown",
    "OnSignal",
    "RecordRefused",
    "RecordTooLarge",
    "Relay",
    "RelayCollector",
    "RelayError",
    "Replication",
    "Retry",
    "RowFault",
    "Signal",
    "Statistics",
    "TopicState",
    "TopicUnknown",
    "TopicsFirst",
    "TopicsNotReady",
    "check_relay",
    "cluster_state",
    "ensure_topics",
    "markers_topic",
    "min_isr_for",
    "next_step",
    "raise_message_limit",
    "replicas_for",
)
