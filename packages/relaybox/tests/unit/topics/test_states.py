"""What the metadata of a topic says of its partitions."""

from types import SimpleNamespace

from relaybox.topics._states import _state


def partition(leader: int, replicas: list[int], isrs: list[int]) -> SimpleNamespace:
    return SimpleNamespace(leader=leader, replicas=replicas, isrs=isrs)


def test_partition_needs_at_most_as_many_replicas_in_sync_as_it_has() -> None:
    # Partition.effectiveMinIsr of Kafka.
    state = _state({0: partition(1, [1], [1])}, {"min.insync.replicas": 2})
    assert (state.below_min_isr, state.min_isr, state.replicas) == ((), 2, 1)


def test_partition_with_too_few_replicas_in_sync_is_reported_once() -> None:
    partitions = {
        0: partition(1, [1, 2, 3], [1]),
        1: partition(1, [1, 2, 3], [1, 2]),
        2: partition(-1, [1], []),
    }
    state = _state(partitions, {"min.insync.replicas": 2})
    assert (state.offline, state.below_min_isr, state.under_replicated) == ((2,), (0,), (1,))
