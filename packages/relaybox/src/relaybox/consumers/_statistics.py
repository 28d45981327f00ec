"""Figures of a consumer, for operators and tests."""

from dataclasses import dataclass

__all__ = ("ConsumerStatistics",)


@dataclass(frozen=True, kw_only=True)
class ConsumerStatistics:
    """Figures of one :class:`~relaybox.consumers.Consumer` since its start."""

    #: Partitions assigned now; 0 before the first assignment, and while other members have all of them.
    partitions: int
    #: Messages read but not finished.
    buffered: int
    #: Partitions whose oldest message waits for its next attempt or for the database.
    waiting: int
    #: Events whose handler's transaction has committed.
    handled: int
    #: Redelivered events that this group had processed before.
    already_done: int
    #: Messages of types without a subscription.
    skipped: int
    #: Failed attempts of handlers that were retried.
    retries: int
    #: Attempts that were retried because of a database error.
    database_waits: int
    #: Whether no broker responds.
    kafka_unavailable: bool
