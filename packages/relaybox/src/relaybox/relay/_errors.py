"""Errors between the outbox and Kafka, by cause, and when the relay tries again.

::

    RelayboxError
    └── RelayError
        ├── HistoryChanged    PostgreSQL failed over or was restored; the relay starts a new session
        ├── LaneFaulty        Kafka and the database disagree about a lane; the lane stops for an operator
        ├── PublishedUnknown  records from before a failover may be gone; the lane stops for an operator
        ├── LinkDown          a fault of the brokers or the network
        │   ├── PartitionUnavailable   one partition accepts no writes; its keys wait
        │   └── TransactionUnfinished  the last transaction of a lane's producer has not ended
        └── RowFault          a fault of one row; its key waits, all other keys are published
            ├── EnvelopeIncomplete
            ├── TopicUnknown
            ├── TopicNameTooLong
            ├── RecordTooLarge
            └── RecordRefused
"""

__all__ = (
    "EnvelopeIncomplete",
    "GiveUp",
    "HistoryChanged",
    "LaneFaulty",
    "LinkDown",
    "PartitionUnavailable",
    "Postpone",
    "PublishedUnknown",
    "RecordRefused",
    "RecordTooLarge",
    "RelayError",
    "Retry",
    "RowFault",
    "TopicNameTooLong",
    "TopicUnknown",
    "TransactionUnfinished",
    "link_pause_s",
    "next_step",
)

from dataclasses import dataclass
from typing import Final

from confluent_kafka import KafkaError

from relaybox.errors import RelayboxError

#: A row is retried after 1, 2 and 4 s, and FAILED after the third retry (G24).
_RETRIES_S: Final = (1.0, 2.0, 4.0)
_LINK_PAUSE_S: Final = 0.1
_LINK_PAUSE_S_MAX: Final = 2.0


class RelayError(RelayboxError):
    """Base class of the errors of a relay."""

    error_code = "RELAY_ERROR"


class LinkDown(RelayError):
    """Raised when no broker responds or acknowledges in time; the relay retries without limit."""

    error_code = "RELAY_LINK_DOWN"


class PartitionUnavailable(LinkDown):
    """Reason to postpone a row: its partition accepts no writes. Rows of other keys are published (G36)."""

    error_code = "RELAY_PARTITION_UNAVAILABLE"


class TransactionUnfinished(LinkDown):
    """Reason why the relay cannot take a lane over yet: a Kafka transaction of the lane has not ended.

    The transaction prevents the initialisation of a producer with the same ``transactional.id``, or may hide
    the last marker of the lane (the id of the last committed batch, in the control topic).
    """

    error_code = "RELAY_TRANSACTION_UNFINISHED"


class RowFault(RelayError):
    """Base class of faults of a row; the column ``error_data`` of the row has class and message (G24)."""

    error_code = "RELAY_ROW_FAULT"


class EnvelopeIncomplete(RowFault):
    """The payload has no ``event_id``, or no ``event_type`` that is valid in a CloudEvent; skip the row."""

    error_code = "RELAY_ENVELOPE_INCOMPLETE"


class TopicUnknown(RowFault):
    """The broker has no topic of that name; create the topic, and retry the row if FAILED."""

    error_code = "RELAY_TOPIC_UNKNOWN"


class TopicNameTooLong(RowFault):
    """The topic's name is longer than Kafka allows, so the topic cannot be created; skip the row."""

    error_code = "RELAY_TOPIC_NAME_TOO_LONG"


class RecordTooLarge(RowFault):
    """The record exceeds the topic's ``max.message.bytes``; raise the limit, or skip the row."""

    error_code = "RELAY_RECORD_TOO_LARGE"


class RecordRefused(RowFault):
    """The broker rejected the record when the relay sent no other record with it."""

    error_code = "RELAY_RECORD_REFUSED"

    @classmethod
    def by(cls, error: KafkaError) -> "RecordRefused":
        """Return the error for the broker's *error*."""
        return cls(
            f"the broker rejected the record: {error.name()}: {error.str()}; remove the cause and retry the "
            "row, or skip the row"
        )


class HistoryChanged(RelayError):
    """Raised when the history of PostgreSQL (system identifier and timeline) has changed (G35).

    The cause is a failover or a restore. What the relay knows about rows and lanes may then be wrong, so the
    relay starts a new session. The new session leases lanes again; with exactly-once delivery it also reads
    from Kafka what was published.
    """

    error_code = "RELAY_HISTORY_CHANGED"


class PublishedUnknown(RelayError):
    """Raised when the relay cannot find out which rows were published before a failover (G35).

    The cause is retention or compaction, which may have removed records from a topic. The lanes concerned
    stop until an operator runs ``relaybox relay accept``.
    """

    error_code = "RELAY_PUBLISHED_UNKNOWN"


class LaneFaulty(RelayError):
    """Raised when the marker of a lane in Kafka contradicts the database.

    The marker is the id of the last batch of the lane that was committed to Kafka. The error is raised if the
    database has no batch with this id, or if Kafka has no marker although the database has published batches
    of the lane. The cause is a restored database or a lost control topic. The relay stops publishing from the
    lane, because otherwise events could be lost or repeated (G31). An operator runs ``relaybox verify``,
    which reports what is on the topic, and then ``relaybox relay accept``, after which the lane continues.
    """

    error_code = "RELAY_LANE_FAULTY"


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Decision: try the row again after *after_s* seconds; later rows of its key wait."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Decision: mark the row FAILED, which blocks its key until an operator retries or skips the row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postpone:
    """Decision: try the row again after *after_s* seconds; this failure does not count as an attempt."""

    after_s: float


def next_step(attempts: int) -> Retry | GiveUp:
    """Return the decision after failed attempt number *attempts* (1 or more) of a row."""
    assert attempts >= 1
    return Retry(after_s=_RETRIES_S[attempts - 1]) if attempts <= len(_RETRIES_S) else GiveUp()


def link_pause_s(failures: int) -> float:
    """Return the seconds to wait after *failures* consecutive failures: 0.1, doubled up to 2 s."""
    assert failures >= 1
    return min(_LINK_PAUSE_S * 2 ** min(failures - 1, 10), _LINK_PAUSE_S_MAX)
