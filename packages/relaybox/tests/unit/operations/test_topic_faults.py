"""Faults of a topic by its replicas, limits and available brokers."""

from dataclasses import replace

import pytest
from relaybox.operations import TopicUse
from relaybox.operations._topic_faults import Expected, find_faults
from relaybox.topics import Brokers, Replication, TopicState

THREE = Expected(
    brokers=Brokers(live=frozenset({1, 2, 3}), known=frozenset({1, 2, 3})),
    replication=Replication(),
    message_bytes_max=1_000_000,
)
ONE = replace(THREE, brokers=Brokers(live=frozenset({1}), known=frozenset({1})))
SOUND = TopicState(
    partitions=8,
    replicas=3,
    min_isr=2,
    bytes_max=1_048_588,
    offline=(),
    below_min_isr=(),
    under_replicated=(),
)


def codes(state: TopicState | None, expected: Expected = THREE, use: TopicUse = TopicUse.EVENTS) -> list[str]:
    return [fault.code.removeprefix("TOPIC_") for fault in find_faults("events", use, state, expected)]


@pytest.mark.parametrize("use", TopicUse)
def test_correct_topic_has_no_fault(use: TopicUse) -> None:
    assert codes(SOUND, use=use) == []
    assert codes(replace(SOUND, replicas=1, min_isr=1), ONE, use) == []


@pytest.mark.parametrize(
    ("changed", "found"),
    [
        ({"replicas": 1, "min_isr": 1}, ["FEW_REPLICAS"]),
        ({"replicas": 2, "min_isr": 1}, ["FEW_REPLICAS"]),
        ({"replicas": 1, "min_isr": 2}, ["FEW_REPLICAS", "HIGH_MIN_ISR"]),
        ({"min_isr": 1}, ["LOW_MIN_ISR"]),
        ({"min_isr": 3}, ["HIGH_MIN_ISR"]),
        ({"min_isr": None, "bytes_max": None}, []),
        ({"bytes_max": 999_999}, ["LOW_LIMIT"]),
        ({"offline": (1,)}, ["OFFLINE"]),
        ({"below_min_isr": (2,), "under_replicated": (3,)}, ["BELOW_MIN_ISR", "UNDER_REPLICATED"]),
    ],
)
def test_each_fault_of_a_topic_has_its_code(changed: dict[str, object], found: list[str]) -> None:
    assert codes(replace(SOUND, **changed)) == found  # type: ignore[arg-type]


def test_only_event_topics_must_exist() -> None:
    assert codes(None) == ["MISSING"]
    assert codes(None, use=TopicUse.MARKERS) == []


def test_message_limit_is_checked_for_event_topics_only() -> None:
    assert codes(replace(SOUND, bytes_max=1), use=TopicUse.MARKERS) == []


def test_offsets_topic_may_have_min_isr_1() -> None:
    assert codes(replace(SOUND, min_isr=1), use=TopicUse.OFFSETS) == []
    assert codes(replace(SOUND, min_isr=1), use=TopicUse.TRANSACTIONS) == ["LOW_MIN_ISR"]


def test_settings_apply_to_topics_that_relaybox_creates() -> None:
    single = replace(THREE, replication=Replication(replicas=1))
    assert codes(replace(SOUND, replicas=1, min_isr=1), single) == []
    assert codes(replace(SOUND, replicas=1, min_isr=1), single, TopicUse.TRANSACTIONS) == ["FEW_REPLICAS"]
    strict = replace(THREE, replication=Replication(min_isr=3))
    assert (codes(SOUND, strict), codes(replace(SOUND, min_isr=3), strict)) == (["LOW_MIN_ISR"], [])


def test_remedy_names_absent_brokers_and_the_command() -> None:
    absent = replace(THREE, brokers=Brokers(live=frozenset({1, 2}), known=frozenset({1, 2, 3})))
    [behind] = find_faults(
        "events", TopicUse.EVENTS, replace(SOUND, under_replicated=tuple(range(12))), absent
    )
    assert behind.remedy.startswith("start broker 3;")
    assert behind.what == "12 partitions (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …) with a replica that is not in sync"
    [low] = find_faults("events", TopicUse.EVENTS, replace(SOUND, bytes_max=4_000), THREE)
    assert low.remedy == "run `relaybox topics raise-limit events 1000000`"
