"""Errors between the outbox and Kafka, by cause: the link, the row, the lane, PostgreSQL.

::

    RelayboxError
    └── RelayError
        ├── HistoryChanged PostgreSQL failed over or was restored; the relay starts over
        ├── LaneFaulty Kafka and the database disagree about a lane; it stops until an operator decides
        ├── PublishedUnknown the topics do not reach back to a failover; the lane stops as a faulty one
        ├── LinkDown   a fault of the broker or the network; no row is charged
        │   ├── PartitionUnavailable  one partition accepts no writes; its keys wait
        │   └── TransactionUnfinished  a lane's producer waits for a transaction to end
        └── RowFault   a fault of the row itself; its key waits, all others are published
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
    """Raised when no broker acknowledges in time or accepts the relay; publishing resumes by itself."""

    error_code = "RELAY_LINK_DOWN"


class PartitionUnavailable(LinkDown):
    """Raised when a partition accepts no writes: its keys wait, all other keys are published (G36)."""

    error_code = "RELAY_PARTITION_UNAVAILABLE"


class TransactionUnfinished(LinkDown):
    """Raised when a producer cannot open: the last transaction of its ``transactional.id`` has not ended."""

    error_code = "RELAY_TRANSACTION_UNFINISHED"


class RowFault(RelayError):
    """Base of the reasons why one row cannot be published; kept in its ``error_data`` (G24)."""

    error_code = "RELAY_ROW_FAULT"


class EnvelopeIncomplete(RowFault):
    """The payload lacks what a CloudEvent must have: ``event_id`` and ``event_type``."""

    error_code = "RELAY_ENVELOPE_INCOMPLETE"


class TopicUnknown(RowFault):
    """The broker has no topic of that name; create it, and retry the row if it is FAILED."""

    error_code = "RELAY_TOPIC_UNKNOWN"


class RecordTooLarge(RowFault):
    """The record is over the topic's ``max.message.bytes``; raise that, or skip the row."""

    error_code = "RELAY_RECORD_TOO_LARGE"


class RecordRefused(RowFault):
    """The broker rejected this record alone; the message contains the error code."""

    error_code = "RELAY_RECORD_REFUSED"

    @classmethod
    def by(cls, error: KafkaError) -> "RecordRefused":
        """Return the error for the broker's *error*."""
        return cls(f"the broker rejected the record: {error.name()}: {error.str()}")


class HistoryChanged(RelayError):
    """Raised when PostgreSQL is in another history than before: it failed over or was restored (G35).

    What the relay knows may be wrong then. It starts over: it takes lanes anew, and reads from Kafka what was
    published.
    """

    error_code = "RELAY_HISTORY_CHANGED"


class PublishedUnknown(RelayError):
    """Raised when a topic was truncated too far to find out what a lost history published (G35)."""

    error_code = "RELAY_PUBLISHED_UNKNOWN"


class LaneFaulty(RelayError):
    """Raised when Kafka's marker of a lane is not known to this database; the lane is not published from.

    Seen after a restored database or a lost control topic; a guess could lose events or repeat
    them (G31). ``relaybox verify`` reports what is on the topic; ``relaybox relay accept`` resumes the lane.
    """

    error_code = "RELAY_LANE_FAULTY"
