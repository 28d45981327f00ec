"""`make chaos` detects every violation, and its schedule is a function of the seed."""

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from uuid import UUID

import pytest

from tests.faults.chaos._comparison import (
    Record,
    Row,
    TopicFindings,
    check_tables,
    compare_topic,
    lost_by_failovers,
    publishable_events,
)
from tests.faults.chaos._effects import Effect, EffectFindings, Letters, compare_effects
from tests.faults.chaos._journal import CommitResult, Event, Journal
from tests.faults.chaos._report import BROKER_FAULTS, ConsumerReport, quantile
from tests.faults.chaos._schedule import (
    CLUSTER,
    SINGLE_SERVERS,
    FaultKind,
    FaultPattern,
    Target,
    kinds_of,
    schedule,
)

HOUR_S = 3_600
IDS = [UUID(int=number) for number in range(1, 10)]
#: Three events of one key, one of another.
EXPECTED = {IDS[0]: ("a", 1), IDS[1]: ("a", 2), IDS[2]: ("a", 3), IDS[3]: ("b", 1)}


def record(event: int, **other: object) -> Record:
    key, version = EXPECTED.get(IDS[event], ("c", 1))
    made = Record(
        key=key,
        version=version,
        event_id=IDS[event],
        ce_id=IDS[event],
        partition=0,
        offset=0,
        made_ms=0,
    )
    return made._replace(**other)


def row(event: int, **other: object) -> Row:
    key, version = EXPECTED[IDS[event]]
    made = Row(key=key, version=version, event_id=IDS[event], seq=event + 1, status="SENT", skipped=False)
    return made._replace(**other)


ALL = [record(0), record(1), record(2), record(3)]
EFFECTS = [
    Effect(key="a", version=1, event_id=IDS[0], place=1),
    Effect(key="b", version=1, event_id=IDS[3], place=1),
    Effect(key="a", version=2, event_id=IDS[1], place=2),
    Effect(key="a", version=3, event_id=IDS[2], place=3),
]
ROWS = [row(0), row(1), row(2), row(3)]
ACKNOWLEDGED = dict.fromkeys(EXPECTED, CommitResult.ACKNOWLEDGED)


@pytest.mark.parametrize("seconds", [30, 120, HOUR_S])
def test_equal_seeds_give_equal_schedules(seconds: float) -> None:
    assert schedule(42, seconds) == schedule(42, seconds)
    assert schedule(42, seconds) != schedule(43, seconds)


@pytest.mark.parametrize("seed", range(20))
def test_hour_has_the_promised_number_of_faults(seed: int) -> None:
    kinds = Counter(fault.kind for faults in schedule(seed, HOUR_S).values() for fault in faults)
    assert kinds[FaultKind.RELAY_KILL] >= 200
    assert sum(kinds[kind] for kind in BROKER_FAULTS) >= 50
    assert kinds[FaultKind.POSTGRES_CRASH] >= 50
    assert kinds[FaultKind.CONSUMER_KILL] >= 80
    assert kinds[FaultKind.CONSUMER_FREEZE] >= 30
    assert kinds[FaultKind.CONSUMER_RESTART] + kinds[FaultKind.CONSUMER_JOIN] >= 80
    assert kinds[FaultKind.CONSUMER_POISON] >= 100
    assert set(kinds) == set(kinds_of(SINGLE_SERVERS))


@pytest.mark.parametrize("seed", range(20))
def test_hour_on_a_cluster_has_the_promised_faults(seed: int) -> None:
    faults = schedule(seed, HOUR_S, CLUSTER)
    kinds = Counter(fault.kind for of_target in faults.values() for fault in of_target)
    assert kinds[FaultKind.RELAY_KILL] >= 100
    assert kinds[FaultKind.BROKER_KILL] >= 60
    assert kinds[FaultKind.BROKER_FREEZE] >= 30
    assert kinds[FaultKind.LOSSY_PROMOTION] >= 10
    assert kinds[FaultKind.PROMOTION] >= 10
    assert set(kinds) == set(kinds_of(CLUSTER))


@pytest.mark.parametrize("patterns", [SINGLE_SERVERS, CLUSTER], ids=["single", "cluster"])
@pytest.mark.parametrize("seed", range(20))
def test_faults_of_one_target_do_not_overlap(seed: int, patterns: Mapping[Target, FaultPattern]) -> None:
    faults = schedule(seed, HOUR_S, patterns)
    assert set(faults) == set(patterns)
    for of_target in faults.values():
        assert all(fault.at_s + fault.lasts_s < HOUR_S for fault in of_target)
        assert all(one.at_s + one.lasts_s < after.at_s for one, after in pairwise(of_target))


def test_complete_ordered_topic_has_no_violation() -> None:
    assert compare_topic(EXPECTED, ALL) == TopicFindings(records=4, events=4)


def test_missing_record_is_lost() -> None:
    assert compare_topic(EXPECTED, ALL[1:]).findings.counts == {"lost": 1}


def test_second_record_is_duplicate_not_reordered() -> None:
    found = compare_topic(EXPECTED, [*ALL, record(0)])
    assert (found.duplicates, found.events, found.findings.counts) == (1, 4, {})


def test_first_record_behind_a_later_version_is_reordered() -> None:
    found = compare_topic(EXPECTED, [record(0), record(2), record(1), record(3)])
    assert found.findings.counts == {"reordered": 1}


def test_gap_filled_later_is_reordered_despite_repetition() -> None:
    found = compare_topic(EXPECTED, [record(0), record(2), record(1), record(2), record(3)])
    assert (found.findings.counts, found.duplicates) == ({"reordered": 1}, 1)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        (record(0, ce_id=IDS[7]), "changed on its way"),
        (record(0, version=7), "changed on its way"),
        (record(1, partition=1), "of a key in two partitions"),
        (record(8), "never committed, or not to be published"),
    ],
)
def test_changed_record_is_a_violation(wrong: Record, what: str) -> None:
    rest = [one for one in ALL if one.event_id != wrong.event_id]
    assert compare_topic(EXPECTED, [rest[0], wrong, *rest[1:]]).findings.counts[what] >= 1


def test_rejected_row_need_not_be_on_the_topic() -> None:
    assert publishable_events(ROWS, {IDS[1]}) == {
        one: place for one, place in EXPECTED.items() if one != IDS[1]
    }


def test_correct_tables_have_no_violation() -> None:
    unknown = {
        **ACKNOWLEDGED,
        IDS[2]: CommitResult.UNKNOWN,
        IDS[8]: CommitResult.UNKNOWN,
        IDS[7]: CommitResult.REFUSED,
    }
    assert check_tables(ROWS, unknown, set()).counts == {}
    skipped = [row(0), row(1, status="FAILED", skipped=True), row(2), row(3)]
    assert check_tables(skipped, ACKNOWLEDGED, {IDS[1]}).counts == {}


@pytest.mark.parametrize(
    ("rows", "answers", "what"),
    [
        (ROWS[1:], ACKNOWLEDGED, "acknowledged by PostgreSQL and not there"),
        (ROWS, {**ACKNOWLEDGED, IDS[0]: CommitResult.REFUSED}, "committed although refused or never sent"),
        (
            ROWS,
            dict.fromkeys(IDS[1:4], CommitResult.ACKNOWLEDGED),
            "committed although refused or never sent",
        ),
        ([row(0, status="PENDING"), *ROWS[1:]], ACKNOWLEDGED, "not as it must be at the end"),
        ([row(0, status="FAILED", skipped=True), *ROWS[1:]], ACKNOWLEDGED, "not as it must be at the end"),
        ([row(0, status="MISSING", seq=0), *ROWS[1:]], ACKNOWLEDGED, "not as it must be at the end"),
        ([row(0, seq=3), *ROWS[1:]], ACKNOWLEDGED, "committed out of order"),
    ],
)  # fmt: skip
def test_incorrect_tables_are_a_violation(
    rows: list[Row], answers: dict[UUID, CommitResult], what: str
) -> None:
    assert check_tables(rows, answers, set()).counts[what] == 1


def test_published_rejected_row_is_a_violation() -> None:
    assert check_tables(ROWS, ACKNOWLEDGED, {IDS[1]}).counts == {"not as it must be at the end": 1}
    assert compare_topic(publishable_events(ROWS, {IDS[1]}), ALL).findings.counts


def test_event_missing_on_a_standby_is_lost_by_postgresql() -> None:
    answers = {
        **ACKNOWLEDGED,
        IDS[4]: CommitResult.ACKNOWLEDGED,
        IDS[5]: CommitResult.REFUSED,
        IDS[6]: CommitResult.UNKNOWN,
    }
    lost = lost_by_failovers(ROWS, answers, IDS[3:7])
    assert lost == {IDS[4], IDS[6]}
    assert check_tables(ROWS, answers, set(), lost).counts == {}
    found = compare_topic(EXPECTED, [*ALL, record(4), record(4)], lost)
    assert (found.published_and_lost, found.events, found.duplicates, found.findings.counts) == (1, 4, 1, {})


def test_event_lost_without_a_promotion_is_a_violation() -> None:
    answers = {**ACKNOWLEDGED, IDS[4]: CommitResult.ACKNOWLEDGED}
    assert check_tables(ROWS, answers, set(), lost_by_failovers(ROWS, answers, IDS[:4])).counts == {
        "acknowledged by PostgreSQL and not there": 1
    }


def test_journal_has_the_events_without_response_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The response of a killed primary may be read after the promotion."""
    journal = Journal(tmp_path / "journal")
    for number, (sent_s, answered_s) in enumerate([(1, 2), (1, 4), (4, 5), (4, 9), (7, 8), (6, None)]):
        event = Event(event_id=IDS[number], key="key", version=1)
        monkeypatch.setattr("time.monotonic", lambda at_s=sent_s: at_s)
        journal.record_sent([event])
        monkeypatch.setattr("time.monotonic", lambda at_s=answered_s: at_s)
        if answered_s is not None:
            journal.record_result([event], CommitResult.ACKNOWLEDGED)
    journal.close()
    assert list(journal.undecided_between(3, 6)) == [IDS[1], IDS[2], IDS[3], IDS[5]]


def consumer_report(effects: list[Effect], **other: object) -> ConsumerReport:
    fields: dict[str, object] = {"letters": Letters(), "drain_s": 1.0, "unexpected_exits": {}}
    return ConsumerReport(effects=compare_effects(EXPECTED, effects), **(fields | other))


def test_one_effect_per_event_in_order_has_no_violation() -> None:
    assert compare_effects(EXPECTED, EFFECTS) == EffectFindings(expected=4, effects=4)
    assert +consumer_report(EFFECTS).violations() == {}


@pytest.mark.parametrize("missing", range(4))
def test_event_without_effect_is_lost(missing: int) -> None:
    left = [each for each in EFFECTS if each != EFFECTS[missing]]
    assert compare_effects(EXPECTED, left).findings.counts == {"lost": 1}
    assert +consumer_report(left).violations() == {"effect of a consumer lost": 1}


def test_event_with_two_effects_is_doubled() -> None:
    twice = [*EFFECTS, EFFECTS[2]._replace(place=4)]
    assert compare_effects(EXPECTED, twice).findings.counts == {"doubled": 1}
    assert +consumer_report(twice).violations() == {"effect of a consumer doubled": 1}


def test_effect_after_that_of_a_later_version_is_reordered() -> None:
    swapped = [*EFFECTS[:2], EFFECTS[2]._replace(place=3), EFFECTS[3]._replace(place=2)]
    found = compare_effects(EXPECTED, swapped)
    assert (found.findings.counts, found.keys) == ({"reordered": 1}, {"a"})
    assert +consumer_report(swapped).violations() == {"effect of a consumer reordered": 1}


def test_effects_of_a_key_in_concurrent_transactions_are_a_violation() -> None:
    """The second transaction did not see the effect of the first, although both are in order."""
    overlapping = [*EFFECTS[:3], EFFECTS[3]._replace(place=2)]
    assert compare_effects(EXPECTED, overlapping).findings.counts == {
        "at the same time as another one of its key": 1
    }


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"event_id": IDS[8]}, "of no published event"),
        ({"version": 7}, "of a changed event"),
        ({"key": "b", "place": 2}, "of a changed event"),
    ],
)
def test_effect_of_another_event_is_a_violation(changes: dict[str, object], what: str) -> None:
    changed = [*EFFECTS[:3], EFFECTS[3]._replace(**changes)]
    assert compare_effects(EXPECTED, changed).findings.counts[what] == 1


@pytest.mark.parametrize(
    ("other", "what"),
    [
        ({"letters": Letters(parked=2, replayed=1)}, "dead letter not replayed at the end"),
        (
            {"letters": Letters(parked=1, replayed=1, without_poison=1)},
            "event parked although its handler did not fail",
        ),
        ({"drain_s": None}, "consumers stalled before they finished"),
    ],
)
def test_unfinished_consumers_are_a_violation(other: dict[str, object], what: str) -> None:
    assert +consumer_report(EFFECTS, **other).violations() == {what: 1}


def test_percentiles_of_few_values_are_values() -> None:
    assert [quantile([1.0, 2.0, 9.0], share) for share in (0.5, 0.99, 1.0)] == [2.0, 9.0, 9.0]
    assert quantile([], 0.5) == 0.0
