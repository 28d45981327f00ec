"""Which partitions accept no writes, from what the brokers respond; the admin client is imitated."""

import asyncio
from collections.abc import AsyncGenerator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from relaybox.topics import PartitionWatch, _partition_watch

from tests.fixtures.waiting import eventually

BROKERS = [SimpleNamespace(id=number) for number in (0, 1, 2)]
#: A described partition whose leader is unknown has the broker -1, or None in other versions of the client.
NO_BROKER = SimpleNamespace(id=-1)


def partition(number: int, leader: Any, in_sync: int, *, replicas: int = 3) -> SimpleNamespace:
    return SimpleNamespace(id=number, leader=leader, replicas=BROKERS[:replicas], isr=BROKERS[:in_sync])


class Admin:
    """An admin client that describes five partitions of each topic."""

    def __init__(self, _settings: Any) -> None:
        pass

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def describe_topics(self, topics: Any, *, request_timeout: float) -> dict[str, Future[Any]]:
        described: Future[Any] = Future()
        partitions = [
            partition(0, BROKERS[0], 2),
            partition(1, BROKERS[1], 1),
            partition(2, NO_BROKER, 2),
            partition(3, None, 2),
            # Kafka requires at most as many replicas in sync as the partition has.
            partition(4, BROKERS[0], 1, replicas=1),
        ]
        described.set_result(SimpleNamespace(partitions=partitions))
        return {"orders": described}


@pytest.fixture
async def watch(monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[PartitionWatch]:
    """A running watch of a topic whose partitions need two replicas in sync."""
    configs = {"orders": {"min.insync.replicas": "2"}}
    monkeypatch.setattr(_partition_watch, "AdminClient", Admin)
    monkeypatch.setattr(_partition_watch, "topic_configs", lambda *_: configs)
    watch = PartitionWatch({}, on_change=lambda _lost, _restored: None)
    running = asyncio.create_task(watch.run())
    yield watch
    running.cancel()


@pytest.mark.guarantee("G36")
async def test_partitions_without_leader_or_enough_replicas_are_unavailable(watch: PartitionWatch) -> None:
    watch.add(["orders"])

    async def reasons() -> list[str]:
        return watch.reasons()

    found = await eventually("the partitions are described", reasons)
    assert [reason.partition(";")[0] for reason in found] == [
        "partition 1 of topic orders has 1 of 2 required replicas in sync (min.insync.replicas)",
        "partition 2 of topic orders has no leader",
        "partition 3 of topic orders has no leader",
    ]
