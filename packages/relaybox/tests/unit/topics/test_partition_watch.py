"""Which partitions accept no writes, from what the brokers respond; the admin client is imitated."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from relaybox.topics import PartitionWatch, _partition_watch

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.waiting import eventually

BROKERS = [SimpleNamespace(id=number) for number in (0, 1, 2)]
#: A described partition whose leader is unknown has the broker -1, or None in other versions of the client.
NO_BROKER = SimpleNamespace(id=-1)


def partition(number: int, leader: Any, in_sync: int, *, replicas: int = 3) -> SimpleNamespace:
    return SimpleNamespace(id=number, leader=leader, replicas=BROKERS[:replicas], isr=BROKERS[:in_sync])


PARTITIONS = [
    partition(0, BROKERS[0], 2),
    partition(1, BROKERS[1], 1),
    partition(2, NO_BROKER, 2),
    partition(3, None, 2),
    # Kafka requires at most as many replicas in sync as the partition has.
    partition(4, BROKERS[0], 1, replicas=1),
]


class Admin:
    """An admin client of brokers that describe five partitions of each topic in `known`."""

    def __init__(self) -> None:
        self.known = {"orders"}
        #: Names in each request.
        self.requests: list[list[str]] = []
        self.closed = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self.closed.set)

    def configs(self, _admin: Any, topics: Iterable[str], _response_s: float) -> dict[str, dict[str, str]]:
        return {topic: {"min.insync.replicas": "2"} for topic in topics if topic in self.known}

    def describe_topics(self, topics: Any, *, request_timeout: float) -> dict[str, Future[Any]]:
        self.requests.append(topics.topic_names)
        return {topic: self._described(topic) for topic in topics.topic_names}

    def _described(self, topic: str) -> Future[Any]:
        described: Future[Any] = Future()
        if topic in self.known:
            described.set_result(SimpleNamespace(partitions=PARTITIONS))
        else:
            described.set_exception(KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)))
        return described


@pytest.fixture
async def admin(monkeypatch: pytest.MonkeyPatch) -> Admin:
    """Imitate brokers whose topics need two replicas in sync."""
    admin = Admin()
    monkeypatch.setattr(_partition_watch, "AdminClient", lambda _: admin)
    monkeypatch.setattr(_partition_watch, "topic_configs", admin.configs)
    return admin


@pytest.fixture
async def watch(admin: Admin, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[PartitionWatch]:
    """A running watch that sends no request unless it is asked to."""
    for name, pause_s in (("_PAUSE_S", 3_600.0), ("_PAUSE_UNAVAILABLE_S", 3_600.0), ("_PAUSE_S_MIN", 0.0)):
        monkeypatch.setattr(_partition_watch, name, pause_s)
    watch = PartitionWatch({}, on_change=lambda _lost, _restored: None)
    running = asyncio.create_task(watch.run())
    yield watch
    running.cancel()
    async with asyncio.timeout(WAIT_S):
        await admin.closed.wait()


async def reasons_of(watch: PartitionWatch) -> list[str]:
    async def reasons() -> list[str]:
        return watch.reasons()

    return await eventually("the partitions are described", reasons)


@pytest.mark.guarantee("G36")
async def test_partitions_without_leader_or_enough_replicas_are_unavailable(watch: PartitionWatch) -> None:
    watch.add(["orders"])
    assert [reason.partition(";")[0] for reason in await reasons_of(watch)] == [
        "partition 1 of topic orders has 1 of 2 required replicas in sync (min.insync.replicas)",
        "partition 2 of topic orders has no leader",
        "partition 3 of topic orders has no leader",
    ]


async def test_missing_topic_is_described_with_the_next_request(admin: Admin, watch: PartitionWatch) -> None:
    """Each batch adds its topics again: a request for each would be one every 0.5 s."""
    watch.add(["missing", "orders"])
    await reasons_of(watch)
    watch.add(["missing", "orders"])
    for _ in range(10):  # a request that had begun would be sent now
        await asyncio.sleep(0)
    watch.add(["other"])

    async def has_second_request() -> bool:
        return len(admin.requests) > 1

    await eventually("a request for the new topic", has_second_request)
    assert admin.requests == [["missing", "orders"], ["missing", "orders", "other"]]
