"""What can go wrong between the outbox and Kafka, and whose fault it is.

::

    RelayboxError
    └── RelayError
        ├── HistoryChanged PostgreSQL failed over or was restored; the relay starts over
        ├── LaneFaulty Kafka and the database disagree about a lane; it stops until an operator decides
        ├── PublishedUnknown the topics do not reach back to a failover; the lane stops as a faulty one
        ├── LinkDown   the broker's or the network's fault; no row is charged for it
        │   ├── PartitionUnavailable  one partition takes no writes; its keys wait
        │   └── TransactionUnfinished  a lane's producer waits for a transaction to end
        └── RowFault   this row's own fault; its key waits, every other key flows on
            ├── EnvelopeIncomplete
            ├── TopicUnknown
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
    "TopicUnknown",
    "TransactionUnfinished",
)

from confluent_kafka import KafkaError

from relaybox.errors import RelayboxError


class RelayError(RelayboxError):
    """Base of the errors of this package."""

    error_code = "RELAY_ERROR"


class LinkDown(RelayError):
    """Raised when no broker acknowledges in time or refuses the relay; publishing resumes by itself."""

    error_code = "RELAY_LINK_DOWN"


class PartitionUnavailable(LinkDown):
    """Raised when one partition takes no writes: its keys wait for it, all others are published (G36)."""

    error_code = "RELAY_PARTITION_UNAVAILABLE"


class TransactionUnfinished(LinkDown):
    """Raised when a producer cannot open, because the last transaction of its id has not ended yet."""

    error_code = "RELAY_TRANSACTION_UNFINISHED"


class RowFault(RelayError):
    """Base of the reasons why one row cannot be published; kept in its ``error_data`` (G24)."""

    error_code = "RELAY_ROW_FAULT"


class EnvelopeIncomplete(RowFault):
    """The payload lacks what a CloudEvent must have: ``event_id`` and ``event_type``."""

    error_code = "RELAY_ENVELOPE_INCOMPLETE"


class TopicUnknown(RowFault):
    """The broker has no topic of that name; create it and the row goes out by itself, or by a retry."""

    error_code = "RELAY_TOPIC_UNKNOWN"


class RecordTooLarge(RowFault):
    """The record is over the topic's ``max.message.bytes``; raise that, or skip the row."""

    error_code = "RELAY_RECORD_TOO_LARGE"


class RecordRefused(RowFault):
    """The broker refused this record alone; the message has its code."""

    error_code = "RELAY_RECORD_REFUSED"

    @classmethod
    def by(cls, error: KafkaError) -> "RecordRefused":
        """With what the broker said."""
        return cls(f"the broker refused the record: {error.name()}: {error.str()}")


class HistoryChanged(RelayError):
    """Raised when PostgreSQL is in another history than before: it failed over or was restored (G35).

    What the relay knows may be wrong then. It starts over: new lanes, and Kafka is asked what was published.
    """

    error_code = "RELAY_HISTORY_CHANGED"


class PublishedUnknown(RelayError):
    """Raised when a topic does not reach back far enough to tell what a lost history published (G35)."""

    error_code = "RELAY_PUBLISHED_UNKNOWN"


class LaneFaulty(RelayError):
    """A lane is not published from: what Kafka says was published last is not known to this database.

    Seen after a restored database or a lost control topic; a guess could lose events or repeat
    them (G31). ``relaybox verify`` tells what is on the topic, ``relaybox relay accept`` goes on.
    """

    error_code = "RELAY_LANE_FAULTY"
