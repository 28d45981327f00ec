"""The result of a verification."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

__all__ = ("VIOLATIONS", "Example", "Finding", "Isolation", "Kind", "Report", "Tally")

Isolation = Literal["read_committed", "read_uncommitted"]


class Kind(StrEnum):
    """Classification of events that are not on their topic exactly once and in order."""

    #: Committed, and SENT or its row removed, but on no topic (G20).
    LOST = "lost"
    #: More than one record of a topic has its ``ce_id`` (G31).
    DUPLICATED = "duplicated"
    #: Its first record is behind the record of a later event of its key (G21).
    REORDERED = "reordered"
    #: In another partition than the first event of its key, so that readers cannot order them (G21).
    SPREAD = "spread"
    #: Its row is PENDING: not published yet.
    PENDING = "pending"
    #: Its row is FAILED: its key is blocked until an operator acts.
    FAILED = "failed"
    #: An operator decided that it is not published.
    SKIPPED = "skipped"
    #: Published, but not in the database: a failover or a restore of PostgreSQL lost it (G35).
    NOT_IN_DATABASE = "not-in-database"
    #: A record whose event is not in the tables: of another producer, or its outbox row was removed.
    UNKNOWN = "unknown"
    #: Published before the first record that its partition still retains.
    BEYOND_RETENTION = "beyond-retention"


VIOLATIONS: Final = (Kind.LOST, Kind.DUPLICATED, Kind.REORDERED, Kind.SPREAD, Kind.NOT_IN_DATABASE)
"""Kinds that make a verification fail: violations of guarantees, and events that PostgreSQL lost."""
_FAILOVER_REMEDY: Final = "docs/how-to/blocked-key.md, After a failover"


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One event of a finding; fields that are not known are None."""

    event_id: str | None
    #: Id of the outbox row; None without one.
    row_id: str | None
    seq: int | None
    #: Version of its aggregate; None without a row in ``domain_events``.
    version: int | None
    #: Partition and offset of its first record; None without one.
    partition: int | None
    offset: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Events of one kind, with one key, on one topic."""

    kind: Kind
    #: None if the outbox row, and with it the name of the topic, was removed.
    topic: str | None
    key: str | None
    #: Number of affected events of the key.
    events: int
    #: The first of these events, in their order.
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """Numbers of events and keys of one kind."""

    events: int = 0
    keys: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """The result of a verification; :meth:`holds` is the verdict.

    Invariant: every event of the tables is exactly one of published, lost, pending, failed, skipped and
    beyond retention. The other kinds classify records.
    """

    topics: tuple[str, ...]
    isolation: Isolation
    #: Time of the snapshot of the tables, by PostgreSQL's clock; later events are not verified.
    snapshot_at: datetime
    elapsed_s: float
    #: Events in the tables, since the requested time.
    events: int
    #: Of these, events on their topic.
    published: int
    #: Records read.
    records: int
    #: Records in excess of one per event.
    duplicates: int
    #: Every kind, with zeros for kinds that were not found.
    tallies: Mapping[Kind, Tally]
    #: The first keys of each kind.
    findings: tuple[Finding, ...]

    def holds(self, *, allow_duplicates: bool = False) -> bool:
        """Return whether no event has a kind of :data:`VIOLATIONS`."""
        lost_by_postgresql = self.tallies[Kind.NOT_IN_DATABASE].events > 0
        return self.delivery_holds(allow_duplicates=allow_duplicates) and not lost_by_postgresql

    def delivery_holds(self, *, allow_duplicates: bool = False) -> bool:
        """Return whether no event was lost, duplicated, reordered or spread by the delivery to Kafka."""
        allowed = {Kind.NOT_IN_DATABASE, *([Kind.DUPLICATED] if allow_duplicates else [])}
        return not any(self.tallies[kind].events for kind in VIOLATIONS if kind not in allowed)

    @property
    def remedy(self) -> str | None:
        """The documentation for events that PostgreSQL lost; None if it lost none."""
        return _FAILOVER_REMEDY if self.tallies[Kind.NOT_IN_DATABASE].events else None
