"""The report of a run: tables for people, and one JSON object for scripts."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from rich.console import Console
from rich.table import Table

from tests.faults.chaos._comparison import Findings, TopicFindings
from tests.faults.chaos._effects import EffectFindings, Letters
from tests.faults.chaos._journal import CommitResult
from tests.faults.chaos._probes import Probe
from tests.faults.chaos._schedule import FaultKind

BROKER_FAULTS: Final = (
    FaultKind.BROKER_KILL,
    FaultKind.BROKER_RESTART,
    FaultKind.BROKER_FREEZE,
    FaultKind.BROKER_LONG_FREEZE,
)
LIMITATIONS: Final = (
    "Killing a process does not test power loss: data in the operating system's cache survives.\n"
    "The seed replays the schedule of faults, not the timing of the processes."
)


CONSUMER_FREEZES: Final = (FaultKind.CONSUMER_PAUSE, FaultKind.CONSUMER_FREEZE)


@dataclass(frozen=True, kw_only=True, slots=True)
class ConsumerReport:
    """The effects and the dead letters of the consumers."""

    effects: EffectFindings
    letters: Letters
    #: Seconds from the publication of the outbox until all letters were replayed and all messages read;
    #: None if they stalled.
    drain_s: float | None
    #: Number of unrequested exits by exit code.
    unexpected_exits: Mapping[int, int]

    def violations(self) -> Counter[str]:
        """Return the number of violations by kind."""
        found = Counter(
            {f"effect of a consumer {kind}": n for kind, n in self.effects.findings.counts.items()}
        )
        found["dead letter not replayed at the end"] += self.letters.parked - self.letters.replayed
        found["event parked although its handler did not fail"] += self.letters.without_poison
        found["consumers stalled before they finished"] += self.drain_s is None
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the report as an object with fixed keys."""
        counts = self.effects.findings.counts
        return {
            "expected": self.effects.expected,
            "effects": self.effects.effects,
            **{name: counts[name] for name in ("lost", "doubled", "reordered")},
            "letters": self.letters.parked,
            "letters_behind": self.letters.behind,
            "letters_replayed": self.letters.replayed,
            "failed_attempts": self.letters.attempts,
            "drain_s": None if self.drain_s is None else round(self.drain_s, 2),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All findings of a run."""

    seed: int
    minutes: float
    delivery: str
    #: The possible kinds of faults.
    kinds: Sequence[FaultKind]
    injected: Mapping[FaultKind, int]
    results: Mapping[CommitResult, int]
    committed: int
    poison: int
    #: Acknowledged events that PostgreSQL lost in promotions of a lagging standby: no violation.
    lost_by_postgres: int
    read_committed: TopicFindings
    read_uncommitted: TopicFindings
    tables: Findings
    #: Violations without a record: an incomplete drain, an open transaction, a failed stop.
    other_violations: Sequence[str]
    #: Without probes that a failover of PostgreSQL lost.
    probes: Sequence[Probe]
    seen_s: Mapping[UUID, float]
    #: Of the consumer that received the probes, for evidence.
    follower_statistics: str
    #: Seconds from the last fault until the outbox was published; None if it was not.
    drain_s: float | None
    #: Number of unrequested exits of relays by exit code.
    unexpected_exits: Mapping[int, int]
    #: None without consumers.
    consumers: ConsumerReport | None

    def violations(self) -> Counter[str]:
        """Return the number of violations by kind."""
        found = Counter(self.tables.counts)
        if self.consumers is not None:
            found.update(self.consumers.violations())
        found.update(self.read_committed.findings.counts)
        if self.delivery == "exactly-once":
            found["duplicated for readers of committed messages"] += self.read_committed.duplicates
        found["read_uncommitted: changed on its way"] += self.read_uncommitted.findings.counts[
            "changed on its way"
        ]
        found.update(self.other_violations)
        found["fault never recovered from"] += len(self.probes) - len(self.recoveries())
        return +found

    def recoveries(self) -> list[tuple[FaultKind, float]]:
        """Return the seconds from each fault until its probe was consumed, in all lanes."""
        times = [(probe.kind, probe.recovery_s(self.seen_s)) for probe in self.probes]
        return [(kind, seconds) for kind, seconds in times if seconds is not None]

    def as_json(self) -> dict[str, Any]:
        """Return the report as an object with fixed keys."""
        seconds = sorted(seconds for _, seconds in self.recoveries())
        lost, reordered = (self.read_committed.findings.counts[name] for name in ("lost", "reordered"))
        return {
            "seed": self.seed,
            "minutes": self.minutes,
            "delivery": self.delivery,
            "relay_kills": self.injected.get(FaultKind.RELAY_KILL, 0),
            "broker_faults": sum(self.injected.get(kind, 0) for kind in BROKER_FAULTS),
            "postgres_crashes": self.injected.get(FaultKind.POSTGRES_CRASH, 0),
            "consumer_kills": self.injected.get(FaultKind.CONSUMER_KILL, 0),
            "consumer_freezes": sum(self.injected.get(kind, 0) for kind in CONSUMER_FREEZES),
            "faults": sum(self.injected.values()),
            "by_kind": {kind: self.injected.get(kind, 0) for kind in self.kinds},
            "sent": sum(self.results.values()),
            **{answer.value: self.results.get(answer, 0) for answer in CommitResult},
            "committed": self.committed,
            "poison": self.poison,
            "lost_by_postgres": self.lost_by_postgres,
            "published_and_lost_by_postgres": self.read_committed.published_and_lost,
            "on_topic": self.read_committed.events,
            "lost": lost,
            "duplicated_on_the_wire": self.read_uncommitted.duplicates,
            "duplicated_read_committed": self.read_committed.duplicates,
            "reordered": reordered,
            "recovery_p50_s": round(quantile(seconds, 0.5), 2),
            "recovery_p99_s": round(quantile(seconds, 0.99), 2),
            "recovery_max_s": round(quantile(seconds, 1.0), 2),
            "drain_s": None if self.drain_s is None else round(self.drain_s, 2),
            "consumers": None if self.consumers is None else self.consumers.as_json(),
            "violations": dict(self.violations()),
        }


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the quantile *share* of *ordered*; 0 if empty."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def print_report(report: Report, console: Console) -> None:
    """Print the tables; the caller prints the JSON object."""
    console.print(_faults(report))
    console.print(_events(report))
    if report.consumers is not None:
        console.print(_effects(report.consumers))
    exits = {"relays": report.unexpected_exits}
    if report.consumers is not None:
        exits["consumers"] = report.consumers.unexpected_exits
    for service, codes in exits.items():
        if codes:
            ends = ", ".join(f"exit code {code} × {times}" for code, times in codes.items())
            console.print(f"Unrequested exits of {service}, which were restarted: {ends}")
    for kind, count in report.violations().items():
        console.print(f"[bold red]VIOLATED[/] {count} × {kind}")
    console.print(LIMITATIONS, highlight=False)


def _faults(report: Report) -> Table:
    by_kind: dict[FaultKind, list[float]] = defaultdict(list)
    for kind, seconds in report.recoveries():
        by_kind[kind].append(seconds)
    table = Table("fault", "injected", "recovery p50 s", "p99 s", "max s", title="Faults")
    for kind in report.kinds:
        table.add_row(kind, f"{report.injected.get(kind, 0):,}", *_times(by_kind[kind]))
    every = [seconds for one in by_kind.values() for seconds in one]
    table.add_section()
    table.add_row("all", f"{sum(report.injected.values()):,}", *_times(every))
    return table


def _times(seconds: Sequence[float]) -> list[str]:
    ordered = sorted(seconds)
    return [f"{quantile(ordered, share):.2f}" if ordered else "" for share in (0.5, 0.99, 1.0)]


def _events(report: Report) -> Table:
    json = report.as_json()
    table = Table(
        "events", "", title=f"Events, {report.delivery}, {report.minutes:g} min, seed {report.seed}"
    )
    names = {
        "sent": "sent",
        "acknowledged": "acknowledged",
        "refused": "refused (or rolled back by the writer)",
        "unknown": "unknown to the writer",
        "committed": "committed",
        "poison": "of these poison: FAILED, then skipped; blocked only its key",
        "lost_by_postgres": "acknowledged, lost by PostgreSQL in promotions of a lagging standby",
        "published_and_lost_by_postgres": "lost by PostgreSQL, found on the topic",
        "on_topic": "found on the topic",
        "lost": "lost",
        "duplicated_on_the_wire": "duplicated on the wire (read_uncommitted)",
        "duplicated_read_committed": "duplicated for read_committed readers",
        "reordered": "reordered per key",
        "drain_s": "seconds from the last fault until the outbox was published",
    }
    _add_rows(table, names, json)
    return table


def _effects(report: ConsumerReport) -> Table:
    table = Table("effects", "", title="Effects of the consumers")
    names = {
        "expected": "published events that the consumers must process",
        "effects": "effects found",
        "lost": "lost",
        "doubled": "doubled",
        "reordered": "reordered per key",
        "letters": "events parked as dead letters",
        "letters_behind": "of these parked behind another letter, and never failed themselves",
        "letters_replayed": "of all letters replayed",
        "failed_attempts": "failed attempts of the handlers of parked events",
        "drain_s": "seconds from the published outbox until all letters were replayed",
    }
    _add_rows(table, names, report.as_json())
    return table


def _add_rows(table: Table, names: Mapping[str, str], values: Mapping[str, Any]) -> None:
    for name, text in names.items():
        value = values[name]
        table.add_row(text, "never" if value is None else f"{value:,}")
