"""The relay: publish rows of the outbox to Kafka, exactly once or at least once, in order per key."""

from relaybox.relay._errors import (
    EnvelopeIncomplete,
    GiveUp,
    LinkDown,
    RecordRefused,
    RecordTooLarge,
    RelayError,
    Retry,
    RowFault,
    TopicNameTooLong,
    TopicUnknown,
    next_step,
)
from relaybox.relay._lanes import LANES_CHANNEL
from relaybox.relay._plan import BreakerState
from relaybox.relay._relay import Relay, TopicsFirst
from relaybox.relay._statistics import (
    BATCH_ROWS_BOUNDS,
    DELAY_BOUNDS_S,
    Backlog,
    RelayCollector,
    RelaySignal,
    Statistics,
    check_relay,
)
from relaybox.relay._transaction import markers_topic

__all__ = (
    "BATCH_ROWS_BOUNDS",
    "DELAY_BOUNDS_S",
    "LANES_CHANNEL",
    "Backlog",
    "BreakerState",
    "EnvelopeIncomplete",
    "GiveUp",
    "LinkDown",
    "RecordRefused",
    "RecordTooLarge",
    "Relay",
    "RelayCollector",
    "RelayError",
    "RelaySignal",
    "Retry",
    "RowFault",
    "Statistics",
    "TopicNameTooLong",
    "TopicUnknown",
    "TopicsFirst",
    "check_relay",
    "markers_topic",
    "next_step",
)
