"""What a consumer has done, for operators and tests alike."""

from dataclasses import dataclass

__all__ = ("ConsumerStatistics",)


@dataclass(frozen=True, kw_only=True)
class ConsumerStatistics:
    """Figures of one :class:`~relaybox.consumers.Consumer` since its start."""

    #: Partitions held now; 0 before the group has given any, and while another member has all.
    partitions: int
    #: Messages read and not done.
    buffered: int
    #: Partitions whose head waits: for its next attempt, or for PostgreSQL.
    waiting: int
    #: Events whose handler's transaction committed.
    handled: int
    #: Events this group had done before.
    already_done: int
    #: Messages of types nobody here subscribes to.
    skipped: int
    #: Attempts of handlers that failed and were made again.
    retries: int
    #: Attempts that PostgreSQL could not serve and that were made again.
    database_waits: int
    #: Whether no broker answers.
    kafka_unavailable: bool
