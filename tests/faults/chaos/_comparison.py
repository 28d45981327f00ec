"""Compare journal, tables and topic. Pure functions that share no code with the product."""

from collections import Counter
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from uuid import UUID

from tests.faults.chaos._journal import CommitResult

#: Maximum of violations per kind with evidence; all are counted.
_EVIDENCE_MAX: Final = 50


class Record(NamedTuple):
    """One message of the topic."""

    key: str
    version: int
    #: In the value.
    event_id: UUID
    #: In the header.
    ce_id: UUID
    partition: int
    offset: int
    #: Creation time by the producer, milliseconds since 1970.
    made_ms: int


class Row(NamedTuple):
    """One committed event with its outbox row at the end of the run."""

    key: str
    version: int
    event_id: UUID
    seq: int
    #: MISSING without an outbox row.
    status: str
    skipped: bool


@dataclass(kw_only=True, slots=True)
class Findings:
    """Counts of violations by kind, with evidence for the first."""

    counts: Counter[str] = field(default_factory=Counter[str])
    evidence: dict[str, list[str]] = field(default_factory=dict[str, list[str]])

    def add(self, kind: str, what: object) -> None:
        """Count one violation of *kind*."""
        self.counts[kind] += 1
        kept = self.evidence.setdefault(kind, [])
        if len(kept) < _EVIDENCE_MAX:
            kept.append(str(what))


@dataclass(kw_only=True, slots=True)
class TopicFindings:
    """The result of comparing the whole topic with the expected events."""

    records: int = 0
    #: Distinct expected events on the topic.
    events: int = 0
    #: Distinct events on the topic that a failover of PostgreSQL lost.
    published_and_lost: int = 0
    #: Records after the first of their event.
    duplicates: int = 0
    #: Lost and reordered events and other violations.
    findings: Findings = field(default_factory=Findings)
    #: The first duplicates, as evidence.
    duplicate_records: list[Record] = field(default_factory=list[Record])


def compare_topic(
    expected: Mapping[UUID, tuple[str, int]],
    records: Iterable[Record],
    lost_by_postgres: Set[UUID] = frozenset(),
) -> TopicFindings:
    """Compare *records* with the events that must be on the topic: id to key and version.

    Events in *lost_by_postgres* may be on the topic or not. Per key, first appearances must be ordered by
    version; a later copy of an earlier event is a duplicate, not reordered.
    """
    found, seen = TopicFindings(), set[UUID]()
    last: dict[str, tuple[int, int]] = {}
    for record in records:
        found.records += 1
        place = expected.get(record.event_id)
        if place is None and record.event_id in lost_by_postgres:
            found.duplicates += record.event_id in seen
            found.published_and_lost += record.event_id not in seen
            seen.add(record.event_id)
            continue
        if place is None:
            found.findings.add("never committed, or not to be published", record)
            continue
        if place != (record.key, record.version) or record.ce_id != record.event_id:
            found.findings.add("changed on its way", record)
        if record.event_id in seen:
            found.duplicates += 1
            if len(found.duplicate_records) < _EVIDENCE_MAX:
                found.duplicate_records.append(record)
            continue
        seen.add(record.event_id)
        version, partition = last.get(record.key, (0, record.partition))
        if record.version < version:
            found.findings.add("reordered", f"{record} came after version {version}")
        if record.partition != partition:
            found.findings.add("of a key in two partitions", f"{record}, before in {partition}")
        last[record.key] = (max(version, record.version), record.partition)
    found.events = len(seen) - found.published_and_lost
    for event_id in expected.keys() - seen:
        found.findings.add("lost", (event_id, *expected[event_id]))
    return found


def publishable_events(rows: Iterable[Row], poison: set[UUID]) -> dict[UUID, tuple[str, int]]:
    """Return the events that must be on the topic: all committed ones except poison."""
    return {row.event_id: (row.key, row.version) for row in rows if row.event_id not in poison}


def lost_by_failovers(
    rows: Iterable[Row], results: Mapping[UUID, CommitResult], at_risk: Iterable[UUID]
) -> set[UUID]:
    """Return the events that PostgreSQL lost.

    Args:
        rows: The committed events.
        results: The results of the writers' commits.
        at_risk: Events without a result at some time between the start of the standby's lag and the
            redirection of the address to that standby.
    """
    present = {row.event_id for row in rows}
    return {each for each in at_risk if each not in present and results[each] is not CommitResult.REFUSED}


def check_tables(
    rows: Iterable[Row],
    results: Mapping[UUID, CommitResult],
    poison: set[UUID],
    lost_by_postgres: Set[UUID] = frozenset(),
) -> Findings:
    """Compare committed events (by key and version) with the writers' results, and check final states."""
    findings, present = Findings(), set[UUID]()
    before: Row | None = None
    for row in rows:
        present.add(row.event_id)
        answer = results.get(row.event_id)
        if answer is None or answer is CommitResult.REFUSED:
            findings.add("committed although refused or never sent", (answer, row))
        if (row.status, row.skipped) != (("FAILED", True) if row.event_id in poison else ("SENT", False)):
            findings.add("not as it must be at the end", row)
        if before is not None and before.key == row.key and row.seq <= before.seq:
            findings.add("committed out of order", (before, row))
        before = row
    present |= lost_by_postgres
    for event_id, answer in results.items():
        if answer is CommitResult.ACKNOWLEDGED and event_id not in present:
            findings.add("acknowledged by PostgreSQL and not there", event_id)
    return findings
