"""Which lanes exactly-once delivery takes over, and which claims it then deletes; takeovers are imitated."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from relaybox.db import Database, DatabaseUnavailable
from relaybox.relay import _claims, _exactly_once
from relaybox.relay._batches import LaneBatch, TransactionResult, TransactionState
from relaybox.relay._exactly_once import ExactlyOnce
from relaybox.relay._messages import Message
from relaybox.relay._postgres import Connections, Lane
from relaybox.relay._takeover import OpenedLane, Takeover
from relaybox.settings import KafkaSettings, PostgresSettings
from relaybox.topics import DEFAULT_REPLICATION, PartitionWatch, UnavailablePartitions

from tests.fixtures.bounds import WAIT_S

LANES = [Lane(lane=number, epoch=1, valid_until_s=0.0) for number in (0, 1)]
ATTRIBUTES = ("1", "T", None, None, None, None, None, None)
MESSAGE = Message(1, 0, 1, "t", "a", 0, b"{}", ATTRIBUTES, "binary", UUID(int=1))
#: Imitated takeovers do not use it.
CONNECTION: Any = None


class Producer:
    """A producer whose transactions end at once."""

    batch_bytes = 1_000

    def __init__(self, state: TransactionState) -> None:
        self._state = state

    def publish(self, _batch: LaneBatch) -> TransactionResult:
        return TransactionResult(state=self._state)

    def close(self) -> None:
        """Close nothing."""


class Takeovers:
    """Imitates the servers of a delivery: what each takeover was asked for, and what was trimmed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[list[int]] = []
        self.trimmed: list[Mapping[tuple[int, int], int]] = []
        #: Lanes whose takeover finds a contradiction.
        self.faulty: set[int] = set()
        self.error: Exception | None = None
        #: State of each transaction after its end.
        self.state = TransactionState.COMMITTED
        #: Ids of the batches whose claims were withdrawn.
        self.withdrawn: list[UUID] = []
        self.woken = asyncio.Event()
        monkeypatch.setattr(_exactly_once, "take_over", self.take_over)
        monkeypatch.setattr(_exactly_once, "trim", self.trim)
        monkeypatch.setattr(_claims, "fetch_rows", self.fetch_rows)
        monkeypatch.setattr(_exactly_once, "origin_of", self.origin_of)

    async def origin_of(self, _connection: None) -> UUID:
        return UUID(int=0)

    async def take_over(self, _connection: None, lanes: Sequence[Lane], *_: Any, **__: Any) -> Takeover:
        self.asked.append([lane.lane for lane in lanes])
        if self.error is not None:
            raise self.error
        opened = [lane for lane in lanes if lane.lane not in self.faulty]
        producer: Any = Producer(self.state)
        return Takeover(
            opened=[OpenedLane(lane=lane, producer=producer, last_id=None) for lane in opened],
            faulty=[lane for lane in lanes if lane.lane in self.faulty],
        )

    async def fetch_rows(self, _connection: None, _query: str, batch_ids: Sequence[UUID]) -> None:
        self.withdrawn.extend(batch_ids)

    async def trim(self, _connection: None, settled: Mapping[tuple[int, int], int]) -> None:
        self.trimmed.append(settled)

    async def opened_of(self, delivery: ExactlyOnce, lanes: Sequence[Lane] = LANES) -> list[int]:
        """Return the lanes that are open after the takeover that `ready` starts."""
        self.woken.clear()
        delivery.ready(lanes)
        async with asyncio.timeout(WAIT_S):
            await self.woken.wait()
        return [lane.lane for lane in delivery.ready(lanes)]


class Limits:
    """An admin client that knows the limits of all topics."""

    def __init__(self, _connection: Mapping[str, Any]) -> None:
        pass

    def cached_limits(self, topics: Iterable[str]) -> Mapping[str, int]:
        return dict.fromkeys(topics, 1_000_000)

    def check(self) -> list[str]:
        return []

    def forget_limits(self) -> None:
        """Forget nothing."""

    def close(self) -> None:
        """Close nothing."""


class NoConnections(Connections):
    """Connections to no server."""

    history_id = UUID(int=0)

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Any]:
        yield CONNECTION


class NewTopics(PartitionWatch):
    """A watch of brokers that know a topic only after a takeover, which creates it."""

    def __init__(self, takeovers: Takeovers) -> None:
        super().__init__({}, on_change=lambda _lost, _restored: None)
        self._takeovers = takeovers

    def add(self, topics: Iterable[str]) -> None:
        if self._takeovers.asked:
            state = UnavailablePartitions(2, {1: "no leader"})
            self.unavailable = dict.fromkeys(topics, state)


@pytest.fixture
def takeovers(monkeypatch: pytest.MonkeyPatch) -> Takeovers:
    return Takeovers(monkeypatch)


@pytest.fixture
def partitions() -> PartitionWatch:
    return PartitionWatch({}, on_change=lambda _lost, _restored: None)


def deliver(takeovers: Takeovers, partitions: PartitionWatch) -> ExactlyOnce:
    return ExactlyOnce(
        NoConnections(Database(PostgresSettings(port=1, password=SecretStr("unused")))),
        KafkaSettings(port=1),
        compression="none",
        replication=DEFAULT_REPLICATION,
        partitions=partitions,
        wake=takeovers.woken.set,
    )


@pytest.fixture
async def delivery(
    takeovers: Takeovers, partitions: PartitionWatch, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[ExactlyOnce]:
    monkeypatch.setattr(_exactly_once, "BrokerClient", Limits)
    delivery = deliver(takeovers, partitions)
    yield delivery
    await delivery.close()


async def test_open_lane_is_not_taken_over_again(delivery: ExactlyOnce, takeovers: Takeovers) -> None:
    assert await takeovers.opened_of(delivery) == [0, 1]
    await asyncio.sleep(0)
    assert [lane.lane for lane in delivery.ready(LANES)] == [0, 1]
    assert takeovers.asked == [[0, 1]]


@pytest.mark.guarantee("G31")
async def test_lane_is_open_in_the_epoch_of_its_takeover_only(
    delivery: ExactlyOnce, takeovers: Takeovers
) -> None:
    def leased(epoch: str) -> Lane:
        return Lane(lane=0, epoch=int(epoch), valid_until_s=0.0)

    assert await takeovers.opened_of(delivery, [leased("1000")]) == [0]
    renewed = leased("1000")
    assert delivery.ready([renewed]) == [renewed]
    assert delivery.ready([leased("1001")]) == []


@pytest.mark.guarantee("G31")
@pytest.mark.parametrize("epoch", [1, 3])
async def test_lane_with_a_batch_of_another_epoch_is_kept_but_not_open(
    delivery: ExactlyOnce, takeovers: Takeovers, epoch: int
) -> None:
    owned, other = [Lane(lane=0, epoch=number, valid_until_s=0.0) for number in (2, epoch)]
    assert await takeovers.opened_of(delivery, [owned]) == [0]
    batch = LaneBatch(messages=[MESSAGE], lanes=frozenset({0}))
    transaction = delivery.publish(batch)
    assert delivery.ready([other]) == []
    assert (await transaction).sent == [MESSAGE], "its producer was not closed"
    assert takeovers.asked == [[0]]


@pytest.mark.guarantee("G31")
async def test_lane_in_contradiction_waits_while_other_lanes_open(
    delivery: ExactlyOnce, takeovers: Takeovers
) -> None:
    takeovers.faulty = {1}
    assert await takeovers.opened_of(delivery) == [0]
    assert [lane.lane for lane in delivery.ready(LANES)] == [0]
    for _ in range(10):  # a takeover that had begun would be asked for now
        await asyncio.sleep(0)
    assert takeovers.asked == [[0, 1]], "its pause of 5 s is not over"


@pytest.mark.guarantee("G31")
async def test_claims_before_the_last_recorded_batch_are_deleted_once(
    delivery: ExactlyOnce, takeovers: Takeovers
) -> None:
    await takeovers.opened_of(delivery)
    first, second = [LaneBatch(messages=[MESSAGE], lanes=frozenset({0})) for _ in range(2)]
    for number, batch in enumerate((first, second), start=7):
        batch.number.set_result(number)
        await delivery.publish(batch)
    delivery.note_recorded(first)
    await delivery.trim_claims(CONNECTION)
    assert takeovers.trimmed == [], "a takeover needs the claim of the batch published last"
    delivery.note_recorded(second)
    await delivery.trim_claims(CONNECTION)
    await delivery.trim_claims(CONNECTION)
    assert takeovers.trimmed == [{(0, 1): 8}]


@pytest.mark.guarantee("G36")
@pytest.mark.parametrize("state", TransactionState)
async def test_takeover_withdraws_claims_of_batches_that_failed_before_commit(
    delivery: ExactlyOnce, takeovers: Takeovers, state: TransactionState
) -> None:
    takeovers.state = state
    await takeovers.opened_of(delivery, LANES[:1])
    batch = LaneBatch(messages=[MESSAGE], lanes=frozenset({0}))
    batch.number.set_result(7)
    await delivery.publish(batch)
    await takeovers.opened_of(delivery, LANES)
    failed = state in (TransactionState.UNPUBLISHED, TransactionState.UNCLAIMED)
    assert takeovers.withdrawn == ([batch.batch_id] if failed else [])


async def test_lane_is_taken_over_again_after_a_failure_of_postgresql(
    delivery: ExactlyOnce, takeovers: Takeovers
) -> None:
    takeovers.error = DatabaseUnavailable("away")
    assert await takeovers.opened_of(delivery, LANES[:1]) == []
    takeovers.error = None
    async with asyncio.timeout(WAIT_S):
        while not delivery.ready(LANES[:1]):
            takeovers.woken.clear()
            await takeovers.woken.wait()
    assert takeovers.asked == [[0], [0]]


@pytest.mark.guarantee("G36")
async def test_rows_of_an_unavailable_partition_are_in_no_batch(
    delivery: ExactlyOnce, takeovers: Takeovers, partitions: PartitionWatch
) -> None:
    await takeovers.opened_of(delivery)
    partitions.unavailable = {"t": UnavailablePartitions(1, {0: "no leader"})}
    other = MESSAGE._replace(seq=2, topic="other", key="b")
    prepared = await delivery.prepare([MESSAGE, other])
    assert [list(batch.messages) for batch in prepared.batches] == [[other]]
    assert [(message, str(fault)) for message, fault in prepared.outcome.faulty] == [(MESSAGE, "no leader")]


@pytest.mark.guarantee("G36")
async def test_lane_whose_markers_cannot_be_read_is_not_taken_over(
    takeovers: Takeovers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The partitions of the control topic are watched, also if the first takeover of an outbox creates it."""
    monkeypatch.setattr(_exactly_once, "BrokerClient", Limits)
    delivery = deliver(takeovers, NewTopics(takeovers))
    assert await takeovers.opened_of(delivery) == [0, 1]
    renewed = [Lane(lane=number, epoch=2, valid_until_s=0.0) for number in (0, 1)]
    async with asyncio.timeout(WAIT_S):
        while not delivery.ready(renewed):
            takeovers.woken.clear()
            await takeovers.woken.wait()
    assert takeovers.asked == [[0, 1], [0]]
    await delivery.close()
