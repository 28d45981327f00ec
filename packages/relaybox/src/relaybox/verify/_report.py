"""What a verification found."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, Literal

__all__ = ("VIOLATIONS", "Example", "Finding", "Isolation", "Kind", "Report", "Tally")

Isolation = Literal["read_committed", "read_uncommitted"]


class Kind(StrEnum):
    """What can be said of an event that is not simply on its topic, once and in order."""

    #: Committed and SENT, or its row is gone, and no reader will ever find it (G20).
    LOST = "lost"
    #: More than one record of a topic has its ``ce_id`` (G31).
    DUPLICATED = "duplicated"
    #: Its first record stands behind that of a later event of its key (G21).
    REORDERED = "reordered"
    #: In another partition than the first event of its key: no reader can tell their order (G21).
    SPREAD = "spread"
    #: Its row is PENDING: the relay has still to publish it.
    PENDING = "pending"
    #: Its row is FAILED: its key waits for an operator.
    FAILED = "failed"
    #: An operator decided that it is not published.
    SKIPPED = "skipped"
    #: Published, and not in the database any more: a failover or a restore of PostgreSQL lost it (G35).
    NOT_IN_DATABASE = "not-in-database"
    #: A record of no event that the tables know: another writer's, or its outbox row was removed.
    UNKNOWN = "unknown"
    #: Published before the first record that its partition still holds.
    BEYOND_RETENTION = "beyond-retention"


VIOLATIONS: Final = (Kind.LOST, Kind.DUPLICATED, Kind.REORDERED, Kind.SPREAD, Kind.NOT_IN_DATABASE)
"""Kinds that a report must not have: what breaks a promise, and what PostgreSQL lost."""
_FAILOVER_REMEDY: Final = "docs/how-to/blocked-key.md, After a failover"


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One event of a finding. What is unknown of it is null."""

    event_id: str | None
    #: Of the outbox row; null when there is none.
    row_id: str | None
    seq: int | None
    #: Of its aggregate; null without a row in ``domain_events``.
    version: int | None
    #: Where its first record stands; null when there is none.
    partition: int | None
    offset: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One key of one topic, and one kind of thing that is the matter with it."""

    kind: Kind
    #: Null when the event's outbox row is gone, and with it the topic's name.
    topic: str | None
    key: str | None
    #: How many of the key's events it concerns.
    events: int
    #: The first of them, in their order.
    examples: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """How often a kind was found."""

    events: int = 0
    keys: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a verification found; :meth:`holds` is the verdict.

    Invariant: every event of the tables is published, or lost, pending, failed, skipped or beyond
    retention, and only one of these. The other kinds are about records.
    """

    topics: tuple[str, ...]
    isolation: Isolation
    #: When the tables were looked at, by PostgreSQL's clock: later events are not judged.
    snapshot_at: datetime
    elapsed_s: float
    #: Events that the tables know, since the time that was asked for.
    events: int
    #: Of these, on their topic.
    published: int
    #: Records read.
    records: int
    #: Records beyond the first of their event.
    duplicates: int
    #: Every kind, those that were not found with zeros.
    tallies: Mapping[Kind, Tally]
    #: The first keys of each kind.
    findings: tuple[Finding, ...]

    def holds(self, *, allow_duplicates: bool = False) -> bool:
        """Return whether there are no :data:`VIOLATIONS`; at least once, duplicates are allowed."""
        lost_by_postgresql = self.tallies[Kind.NOT_IN_DATABASE].events > 0
        return self.delivery_holds(allow_duplicates=allow_duplicates) and not lost_by_postgresql

    def delivery_holds(self, *, allow_duplicates: bool = False) -> bool:
        """Return whether nothing is lost, duplicated, reordered or spread on the way to Kafka."""
        allowed = {Kind.NOT_IN_DATABASE, *([Kind.DUPLICATED] if allow_duplicates else [])}
        return not any(self.tallies[kind].events for kind in VIOLATIONS if kind not in allowed)

    @property
    def remedy(self) -> str | None:
        """The page for events that PostgreSQL lost; None if it lost none."""
        return _FAILOVER_REMEDY if self.tallies[Kind.NOT_IN_DATABASE].events else None
