"""How long a batch waits for acknowledgements while a broker does not respond (G25, G36)."""

import pytest
from relaybox.relay._at_least_once import STALL_S
from relaybox.topics import PartitionWatch, UnavailablePartitions

#: https://kafka.apache.org/documentation/#brokerconfigs_broker.session.timeout.ms
BROKER_SESSION_S = 9.0


def lost(*partitions: int) -> dict[str, UnavailablePartitions]:
    return {"events": UnavailablePartitions(4, dict.fromkeys(partitions, "no leader"))}


@pytest.fixture
def watch() -> PartitionWatch:
    return PartitionWatch({}, on_change=lambda _lost, _restored: None)


@pytest.mark.guarantee("G25")
def test_frozen_broker_loses_its_session_before_the_link_counts_as_down() -> None:
    assert STALL_S > BROKER_SESSION_S


def test_batch_has_the_deadline_of_the_relay(watch: PartitionWatch) -> None:
    stop_s = float("inf")
    deadline = watch.deadline_of_batch(lambda: stop_s)
    assert deadline() == float("inf")
    stop_s = 7.0
    assert deadline() == 7.0


@pytest.mark.guarantee("G36")
def test_deadline_is_over_once_another_partition_accepts_no_writes(watch: PartitionWatch) -> None:
    watch.unavailable = lost(1)
    deadline = watch.deadline_of_batch(lambda: 7.0)
    watch.unavailable = lost(1, 3)
    assert deadline() == 0
    assert watch.deadline_of_batch(lambda: 7.0)() == 7.0


@pytest.mark.guarantee("G36")
def test_partition_that_was_unavailable_before_ends_no_batch(watch: PartitionWatch) -> None:
    watch.unavailable = lost(1, 3)
    deadline = watch.deadline_of_batch(lambda: 7.0)
    watch.unavailable = lost(3)
    assert deadline() == 7.0
