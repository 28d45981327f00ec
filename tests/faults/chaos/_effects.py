"""Compare the effects of the consumers with the published events. Pure; shares no code with the product."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from tests.faults.chaos._comparison import Findings


class Effect(NamedTuple):
    """One row that a consumer's handler wrote."""

    key: str
    version: int
    event_id: UUID
    #: Number of the effect within its key, as its transaction saw it, from 1.
    place: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Letters:
    """The number of dead letters at the end of a run."""

    parked: int = 0
    replayed: int = 0
    #: Parked behind another letter of their key, and never failed themselves.
    behind: int = 0
    #: Calls of handlers that failed, those of replays included.
    attempts: int = 0
    #: Failed with another error than the one that the handlers of the run raise.
    without_poison: int = 0


@dataclass(kw_only=True, slots=True)
class EffectFindings:
    """The result of comparing all effects with the events that must have one."""

    #: Events that must have an effect.
    expected: int = 0
    effects: int = 0
    #: Lost, doubled and reordered effects and other violations.
    findings: Findings = field(default_factory=Findings)
    #: The keys with violations.
    keys: set[str] = field(default_factory=set[str])

    def add(self, kind: str, key: str, what: object) -> None:
        """Count one violation of *kind*."""
        self.findings.add(kind, what)
        self.keys.add(key)


def compare_effects(expected: Mapping[UUID, tuple[str, int]], effects: Iterable[Effect]) -> EffectFindings:
    """Compare *effects* with the events that must have exactly one each: id to key and version.

    Per key, the effects must be ordered by version. A later repetition is doubled, not reordered.
    """
    found, seen = EffectFindings(expected=len(expected)), set[UUID]()
    last: dict[str, Effect] = {}
    for effect in sorted(effects, key=lambda each: (each.key, each.place)):
        found.effects += 1
        known = expected.get(effect.event_id)
        if known is None:
            found.add("of no published event", effect.key, effect)
            continue
        if known != (effect.key, effect.version):
            found.add("of a changed event", effect.key, effect)
        if effect.event_id in seen:
            found.add("doubled", effect.key, effect)
            continue
        seen.add(effect.event_id)
        before = last.get(effect.key)
        if before is not None and effect.version < before.version:
            found.add("reordered", effect.key, f"{effect} came after version {before.version}")
        if before is not None and effect.place == before.place:
            found.add("at the same time as another one of its key", effect.key, (before, effect))
        highest = effect.version if before is None else max(before.version, effect.version)
        last[effect.key] = effect._replace(version=highest)
    for event_id in expected.keys() - seen:
        found.add("lost", expected[event_id][0], (event_id, *expected[event_id]))
    return found
