"""What a consumer reports: statistics for operators and tests, and its signals."""

from dataclasses import dataclass
from enum import auto

from relaybox.signals import Signal

__all__ = ("ConsumerSignal", "ConsumerStatistics")


class ConsumerSignal(Signal):
    """A step of a consumer."""

    ASSIGNED = auto()
    REVOKED = auto()
    COMMITTED = auto()  # the transaction of an event's handler
    ALREADY_DONE = auto()
    TYPE_NOT_SUBSCRIBED = auto()
    RETRYING = auto()
    SPLIT = auto()  # a transaction of several events failed; each is tried alone
    PARKED = auto()
    REPLAYED = auto()
    REPLAY_FAILED = auto()  # the letter is parked again
    WAITING_FOR_DATABASE = auto()
    OFFSETS_COMMITTED = auto()
    PAUSED = auto()
    RESUMED = auto()
    KAFKA_UNAVAILABLE = auto()


@dataclass(frozen=True, kw_only=True)
class ConsumerStatistics:
    """Figures of one :class:`~relaybox.consumers.Consumer` since its start."""

    #: Partitions assigned now; 0 before the first assignment, and while other members have all of them.
    partitions: int
    #: Messages read but not finished.
    buffered: int
    #: Keys that wait for their next attempt or for the database.
    waiting: int
    #: Transactions at work.
    running: int
    #: Events whose handler's transaction has committed.
    handled: int
    #: Redelivered events that this group had processed or parked before.
    already_done: int
    #: Messages of types without a subscription.
    skipped: int
    #: Failed attempts of handlers that were retried.
    retries: int
    #: Messages parked as dead letters, those behind another letter of their key included.
    parked: int
    #: Dead letters that were replayed.
    replayed: int
    #: Attempts that were retried because of a database error.
    database_waits: int
    #: Whether no broker responds.
    kafka_unavailable: bool
