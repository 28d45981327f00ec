"""Errors between the outbox and Kafka, by cause: the link, the row, the lane, PostgreSQL.

::

    RelayboxError
    └── RelayError
        ├── HistoryChanged PostgreSQL failed over or was restored; the relay starts a new session
        ├── LaneFaulty Kafka and the database disagree about a lane; it stops until an operator decides
        ├── PublishedUnknown a topic has lost records from before a failover; the lane stops like a faulty one
        ├── LinkDown   a fault of the broker or the network; no row is charged
        │   ├── PartitionUnavailable  one partition accepts no writes; its keys wait
        │   └── TransactionUnfinished  a lane's producer waits for a transaction to end
        └── RowFault   a fault of the row itself; its key waits, all others are published
            ├── EnvelopeIncomplete
            ├── TopicUnknown
            ├── TopicNameTooLong
            ├── RecordTooLarge
            └── RecordRefused
"""

__all__ = (
    "EnvelopeIncomplete",
    "HistoryChanged",
    "LaneFaulty",
    "LinkDown",
    "PartitionUnavailable",
    "PublishedUnknown",
    "RecordRefused",
    "RecordTooLarge",
    "RelayError",
    "RowFault",
    "TopicNameTooLong",
    "TopicUnknown",
    "TransactionUnfinished",
)

from confluent_kafka import KafkaError

from relaybox.errors import RelayboxError


class RelayError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "RELAY_ERROR"


class LinkDown(RelayError):
    """Raised when no broker accepts the relay or acknowledges in time; the relay retries without limit."""

    error_code = "RELAY_LINK_DOWN"


class PartitionUnavailable(LinkDown):
    """Raised when a partition accepts no writes: its keys wait, all other keys are published (G36)."""

    error_code = "RELAY_PARTITION_UNAVAILABLE"


class TransactionUnfinished(LinkDown):
    """Raised when a producer cannot open: the last transaction of its ``transactional.id`` has not ended."""

    error_code = "RELAY_TRANSACTION_UNFINISHED"


class RowFault(RelayError):
    """Base of the reasons why one row cannot be published; stored in the row's ``error_data`` (G24)."""

    error_code = "RELAY_ROW_FAULT"


class EnvelopeIncomplete(RowFault):
    """The payload has no ``event_id`` or no ``event_type`` that is valid in a CloudEvent."""

    error_code = "RELAY_ENVELOPE_INCOMPLETE"


class TopicUnknown(RowFault):
    """The broker has no topic of that name; create it, and retry the row if it is FAILED."""

    error_code = "RELAY_TOPIC_UNKNOWN"


class TopicNameTooLong(RowFault):
    """The topic's name is longer than Kafka allows, so the topic cannot be created; skip the row."""

    error_code = "RELAY_TOPIC_NAME_TOO_LONG"


class RecordTooLarge(RowFault):
    """The record exceeds the topic's ``max.message.bytes``; raise that limit, or skip the row."""

    error_code = "RELAY_RECORD_TOO_LARGE"


class RecordRefused(RowFault):
    """The broker rejected this record when it was sent alone; the message contains the error code."""

    error_code = "RELAY_RECORD_REFUSED"

    @classmethod
    def by(cls, error: KafkaError) -> "RecordRefused":
        """Return the error for the broker's *error*."""
        return cls(f"the broker rejected the record: {error.name()}: {error.str()}")


class HistoryChanged(RelayError):
    """Raised when PostgreSQL is in another history than before: it failed over or was restored (G35).

    The relay's state may be wrong then. The relay starts a new session: it takes its lanes again, and reads
    from Kafka what was published.
    """

    error_code = "RELAY_HISTORY_CHANGED"


class PublishedUnknown(RelayError):
    """Raised when a topic has lost records that would show what was published before a failover (G35)."""

    error_code = "RELAY_PUBLISHED_UNKNOWN"


class LaneFaulty(RelayError):
    """Raised when Kafka's marker of a lane is not known to this database; the lane is not published from.

    A restored database or a lost control topic causes it. If the relay guessed, it could lose or repeat
    events (G31). ``relaybox verify`` reports what is on the topic, and ``relaybox relay accept`` resumes the
    lane.
    """

    error_code = "RELAY_LANE_FAULTY"
