"""Faults of a consumer group, as the operator reads them."""

from typing import Any

import pytest
from relaybox.operations import ConsumerFault, GroupState, PartitionPosition
from relaybox.operations._consumer_faults import find_consumer_faults

STABLE = GroupState.STABLE


def position(partition: int = 0, **values: Any) -> PartitionPosition:
    fields: dict[str, Any] = {
        "topic": "domain-events",
        "partition": partition,
        "member": "m-1",
        "committed": 5,
        "end": 5,
        "messages": 0,
        "seconds": 0.0,
        "removed": 0,
    }
    return PartitionPosition(**(fields | values))


def faults(state: GroupState, *positions: PartitionPosition, **more: Any) -> list[ConsumerFault]:
    return find_consumer_faults("projection", state, positions, **more)


def codes(state: GroupState, *positions: PartitionPosition, **more: Any) -> list[str]:
    return [fault.code for fault in faults(state, *positions, **more)]


def test_group_that_follows_its_topics_has_no_fault() -> None:
    assert codes(STABLE, position(), position(1, messages=900, seconds=59.0)) == []


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (GroupState.EMPTY, "CONSUMER_STOPPED"),
        (GroupState.REBALANCING, "CONSUMER_REBALANCING"),
        (GroupState.ABSENT, "CONSUMER_ABSENT"),
    ],
)
def test_group_that_is_not_stable_has_a_fault(state: GroupState, code: str) -> None:
    assert codes(state) == [code]


def test_fault_of_a_stopped_group_counts_its_messages() -> None:
    [fault] = faults(GroupState.EMPTY, position(member=None, messages=3), position(1, messages=4))
    assert fault.what == "no consumer of the group is running; messages that wait: 7"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"messages": 3, "seconds": 61.0}, "CONSUMER_LAGS"),
        ({"messages": 3, "seconds": None, "member": None}, "PARTITION_UNASSIGNED"),
        ({"end": None, "messages": None, "seconds": None}, "PARTITION_OFFLINE"),
        ({"removed": 3}, "MESSAGES_REMOVED"),
    ],
)
def test_partition_with_a_fault_is_named(values: dict[str, Any], code: str) -> None:
    [fault] = faults(STABLE, position(), position(7, **values))
    assert fault.code == code
    assert "domain-events/7" in fault.what
    assert "domain-events/0" not in fault.what


def test_partition_without_member_and_messages_is_no_fault() -> None:
    assert codes(STABLE, position(member=None)) == []


def test_faults_name_ten_partitions_at_most() -> None:
    [fault] = faults(STABLE, *(position(number, messages=1, seconds=99.0) for number in range(11)))
    assert fault.what.endswith("domain-events/9, …")


def test_missing_topics_and_letters_are_faults() -> None:
    found = faults(STABLE, position(), topics_missing=["old"], letters=3, keys_blocked=2)
    assert [fault.code for fault in found] == ["TOPIC_MISSING", "DEAD_LETTERS"]
    assert found[0].what == "Kafka shows no topic old"
    assert found[1].what == "3 unresolved dead letters block 2 keys"
    assert "`relaybox dead-letters list --group projection`" in found[1].remedy
