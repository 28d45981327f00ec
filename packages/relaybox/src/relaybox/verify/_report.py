"""The report of a verification: counts and examples of each kind of deviation."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

__all__ = ("VIOLATIONS", "Example", "Finding", "Isolation", "Kind", "Report", "Tally")

#: Isolation levels of a Kafka consumer.
Isolation = Literal["read_committed", "read_uncommitted"]


class Kind(StrEnum):
    """Kinds of deviations, of an event of the tables or of a record on a topic.

    ``verify`` expects that a topic has each event exactly once, in the order of the events of its key, and
    that each record is an event of the tables.
    """

    #: The event's outbox row is SENT, or was removed after it was SENT, but the topic does not have the event
    #: (G20).
    LOST = "lost"
    #: More than one record of a topic has the event's id as ``ce_id`` (G31).
    DUPLICATED = "duplicated"
    #: The event's first record follows a record of a later event of the same key in the partition (G21).
    REORDERED = "reordered"
    #: The event is in another partition than the first event of its key, so that consumers may receive the
    #: events of the key in another order (G21).
    SPREAD = "spread"
    #: The topic does not have the event yet: its outbox row is PENDING.
    PENDING = "pending"
    #: The event's outbox row is FAILED: its key is blocked until an operator retries or skips the row.
    FAILED = "failed"
    #: An operator skipped the event's outbox row: no relay publishes the event.
    SKIPPED = "skipped"
    #: The event was published, but a failover or a restore of PostgreSQL lost its rows (G35).
    NOT_IN_DATABASE = "not-in-database"
    #: The record's event is not in the tables: another program wrote the record, or the event's row was
    #: removed.
    UNKNOWN = "unknown"
    #: The topic does not have the event any more: it is older than the oldest record of its partition.
    BEYOND_RETENTION = "beyond-retention"


VIOLATIONS: Final = (Kind.LOST, Kind.DUPLICATED, Kind.REORDERED, Kind.SPREAD, Kind.NOT_IN_DATABASE)
"""Kinds that make a verification fail: violations of guarantees, and events that PostgreSQL lost."""
_FAILOVER_REMEDY: Final = "section 'After a failover' in docs/how-to/blocked-key.md"


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One event of a finding."""

    #: Id of the event; for a record that is not an event and was published from the outbox, such as a dead
    #: letter, the id in its header ``relaybox_record_id``. None for a record without such an id.
    event_id: str | None
    #: Id of the outbox row; None if there is no row.
    row_id: str | None
    #: ``event_outbox.seq`` of the row; None if there is no row.
    seq: int | None
    #: Version of the aggregate after the event; None if ``domain_events`` does not have the event.
    version: int | None
    #: Partition of the event's first record; None if the topic does not have the event.
    partition: int | None
    #: Offset of the event's first record; None if the topic does not have the event.
    offset: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Events of one kind with the same key and the same topic."""

    kind: Kind
    #: None for events without a record whose outbox rows, which name the topic, were removed.
    topic: str | None
    #: Key of the events. None for events without a key, and for records that are not events and were
    #: published from the outbox, such as dead letters.
    key: str | None
    #: Number of events of this kind, key and topic.
    events: int
    #: The first three of these events, ordered by ``seq``, version and offset.
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Numbers of events and keys of one kind of deviation."""

    events: int = 0
    #: Number of different pairs of topic and key.
    keys: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a verification; :meth:`holds` returns whether the verification passed.

    Invariant: each verified event of the tables is counted once, as published, lost, pending, failed, skipped
    or beyond retention. The other kinds describe records: a published event can also be duplicated, reordered
    or spread.
    """

    #: Names of the topics that were read.
    topics: tuple[str, ...]
    #: Isolation level of the Kafka consumer.
    isolation: Isolation
    #: Begin of the verification by PostgreSQL's clock; all events committed before this time were compared.
    snapshot_at: datetime
    #: Duration of the verification, in seconds.
    elapsed_s: float
    #: Number of verified events: events in the tables that have the requested key and are not older than the
    #: requested time.
    events: int
    #: Number of verified events that are on their topic.
    published: int
    #: Number of records that were read from the topics.
    records: int
    #: Number of surplus records: an event with three records adds two.
    duplicates: int
    #: Numbers of events and keys of each kind; zeros for kinds that were not found.
    tallies: Mapping[Kind, Tally]
    #: Findings of the first keys of each kind, at most as many per kind as the argument ``keys_max`` of
    #: ``verify``.
    findings: tuple[Finding, ...]

    def holds(self, *, allow_duplicates: bool = False) -> bool:
        """Return whether the verification passed: no event has a kind of :data:`VIOLATIONS`.

        With *allow_duplicates*, DUPLICATED does not count, as a relay that delivers at least once may publish
        an event twice.
        """
        lost_by_postgresql = self.tallies[Kind.NOT_IN_DATABASE].events > 0
        return self.delivery_holds(allow_duplicates=allow_duplicates) and not lost_by_postgresql

    def delivery_holds(self, *, allow_duplicates: bool = False) -> bool:
        """Return whether the relays have kept their guarantees; events that PostgreSQL lost do not count.

        True if no event is LOST, REORDERED, SPREAD or DUPLICATED. With *allow_duplicates*, events may be
        DUPLICATED.
        """
        allowed = {Kind.NOT_IN_DATABASE, *([Kind.DUPLICATED] if allow_duplicates else [])}
        return not any(self.tallies[kind].events for kind in VIOLATIONS if kind not in allowed)

    @property
    def remedy(self) -> str | None:
        """Section of the documentation that describes the repair; None if PostgreSQL lost no event."""
        return _FAILOVER_REMEDY if self.tallies[Kind.NOT_IN_DATABASE].events else None
