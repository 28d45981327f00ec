"""A takeover knows all batches published before it, and no batch is published behind it (G31)."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from uuid import uuid4

import asyncpg
import pytest
from relaybox.db import Database, DedicatedConnection
from relaybox.local import LocalKafka
from relaybox.relay import _claims, _transaction
from relaybox.relay._batches import LaneBatch, TransactionResult, TransactionState
from relaybox.relay._claims import Withdrawals, claim, list_claims, origin_of
from relaybox.relay._errors import LinkDown, TransactionUnfinished
from relaybox.relay._kafka import BATCH_BYTES_MAX, client_settings
from relaybox.relay._lanes import Lanes
from relaybox.relay._postgres import Lane, connected, fetch_batch
from relaybox.relay._reconcile import Reconciler
from relaybox.relay._takeover import NewProducer, Takeover, take_over
from relaybox.relay._transaction import LaneProducer, Markers
from relaybox.settings import KafkaSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.relays import put_events, read_topic, rows_of

LatePublish = tuple[LaneBatch, asyncio.Task[TransactionResult]]


@dataclass(frozen=True, kw_only=True)
class Owner:
    """A relay that takes lanes over: its connection, its access to the markers, and its producers."""

    connection: DedicatedConnection
    markers: Markers
    new_producer: NewProducer
    reconciler: Reconciler
    threads: ThreadPoolExecutor

    async def take_over(self, lane: Lane, new_producer: NewProducer | None = None) -> Takeover:
        return await take_over(
            self.connection,
            [lane],
            self.markers,
            new_producer or self.new_producer,
            self.threads,
            self.reconciler,
        )


@pytest.fixture
async def markers(database: Database, kafka_settings: KafkaSettings) -> Markers:
    async with connected(database) as connection:
        return Markers(client_settings(kafka_settings), await origin_of(connection))


@pytest.fixture
async def owner(database: Database, kafka_settings: KafkaSettings, markers: Markers) -> AsyncIterator[Owner]:
    """Return a relay on a new database, whose lanes were published from in no earlier history."""
    made: list[LaneProducer] = []

    def make(lane: int, number: int) -> LaneProducer:
        made.append(
            LaneProducer(
                client_settings(kafka_settings),
                markers,
                lane,
                number,
                batch_bytes=BATCH_BYTES_MAX,
                deadline=lambda: float("inf"),
            )
        )
        return made[-1]

    async with connected(database) as connection:
        with ThreadPoolExecutor(max_workers=4) as threads:
            yield Owner(
                connection=connection,
                markers=markers,
                new_producer=make,
                reconciler=Reconciler(kafka_settings, uuid4()),
                threads=threads,
            )
    for producer in made:
        producer.close()


async def owned(owner: Owner, topic: str) -> Lane:
    """Return the owned lane that the three rows are in."""
    lanes = Lanes(lease_s=600)
    await lanes.renew(owner.connection)
    await put_events(owner.connection, topic, ["key"], count=3)
    [first] = await fetch_batch(owner.connection, lanes.usable(), rows_max=1, in_flight=())
    return next(lane for lane in lanes.usable() if lane.lane == first.lane)


async def opened(owner: Owner, lane: Lane) -> LaneProducer:
    """Return the opened producer of the lane's owner."""
    await asyncio.to_thread(owner.markers.ensure_partitions, [lane.lane])
    producer = owner.new_producer(lane.lane, 0)
    await asyncio.to_thread(producer.open)
    return producer


async def unclaimed(owner: Owner, lane: Lane, after: LaneBatch | None = None) -> LaneBatch:
    """Return a batch of one row: the row *after* the last batch, whose row is not marked yet."""
    in_flight = [message.seq for message in after.messages] if after else ()
    messages = await fetch_batch(owner.connection, [lane], rows_max=1, in_flight=in_flight)
    return LaneBatch(messages=messages, lanes=frozenset({lane.lane}))


async def taken(owner: Owner, lane: Lane, after: LaneBatch | None = None) -> LaneBatch:
    """Return the next batch of the lane after its owner has claimed the batch."""
    batch = await unclaimed(owner, lane, after)
    numbers = await claim(owner.connection, [batch], {lane.lane: after.batch_id if after else None})
    batch.number.set_result(numbers[lane.lane])
    return batch


@pytest.mark.guarantee("G31")
async def test_takeover_knows_batches_published_until_the_fencing(
    database: Database, topic: str, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    former = await opened(owner, lane)
    first = await taken(owner, lane)
    assert (await asyncio.to_thread(former.publish, first)).state is TransactionState.COMMITTED
    last = await taken(owner, lane, first)

    def late(lane_number: int, number: int) -> LaneProducer:
        """Commit the transaction of the former owner at the last possible moment."""
        assert former.publish(last).state is TransactionState.COMMITTED
        return owner.new_producer(lane_number, number)

    takeover = await owner.take_over(lane, late)
    assert [each.last_id for each in takeover.opened] == [last.batch_id]
    assert [row["status"] for row in await rows_of(database)] == ["SENT", "SENT", "PENDING"]
    [left] = (await list_claims(owner.connection, [lane.lane]))[lane.lane]
    assert left.batch_id == last.batch_id, "what was settled is not looked at again"


@pytest.mark.guarantee("G31")
async def test_takeover_fences_the_former_owner(
    database: Database, kafka_settings: KafkaSettings, topic: str, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    former = await opened(owner, lane)
    batch = await taken(owner, lane)
    await owner.take_over(lane)
    result = await asyncio.to_thread(former.publish, batch)
    assert result.state is not TransactionState.COMMITTED
    assert {row["status"] for row in await rows_of(database)} == {"PENDING"}
    assert await asyncio.to_thread(read_topic, kafka_settings.bootstrap_servers, topic) == []


@pytest.mark.guarantee("G29")
async def test_takeover_does_not_scan_the_whole_outbox(
    superuser: asyncpg.Connection, topic: str, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    await superuser.execute("ANALYZE event_outbox")  # the table has one page
    await owner.take_over(lane)
    recover = "EXPLAIN " + _claims._SQL["recover_lane"]
    plan = [
        row[0]
        for row in await owner.connection.fetch(recover, lane.lane, lane.epoch, [1, 2, 3], [], uuid4(), None)
    ]
    assert not [line for line in plan if "Seq Scan on event_outbox" in line]


@pytest.mark.guarantee("G27")
async def test_stopping_relay_does_not_wait_for_markers(
    owner: Owner, kafka_settings: KafkaSettings, kafka_server: LocalKafka
) -> None:
    gone = client_settings(kafka_settings), await origin_of(owner.connection)
    markers = Markers(*gone, deadline=time.monotonic)
    kafka_server.pause()
    try:
        with pytest.raises(LinkDown):
            await asyncio.wait_for(asyncio.to_thread(markers.read_last, range(8)), _transaction._RESPONSE_S)
    finally:
        kafka_server.resume()


async def test_control_topic_being_created_does_not_count_as_broker_outage(markers: Markers) -> None:
    reading = asyncio.create_task(asyncio.to_thread(markers.read_last, range(8)))
    await asyncio.to_thread(markers.ensure_partitions, range(8))
    assert await reading == {}


async def test_markers_of_all_lanes_are_read_by_the_requests_of_one(
    owner: Owner, kafka_settings: KafkaSettings
) -> None:
    """A request per lane would add up, so that the call of a relay with many lanes would count as hung."""
    sent: list[str] = []
    logger = logging.Logger("librdkafka")
    logger.addFilter(lambda line: not sent.append(line.getMessage()))
    debug = {"debug": "protocol", "log_level": 7, "logger": logger}
    connection = client_settings(kafka_settings) | debug
    markers = Markers(connection, await origin_of(owner.connection))
    await asyncio.to_thread(owner.markers.ensure_partitions, range(8))
    await asyncio.to_thread(owner.markers.read_last, range(8))
    await asyncio.to_thread(markers.read_last, range(8))
    assert 0 < len([line for line in sent if "Sent ListOffsetsRequest" in line]) < 8


@pytest.mark.guarantee("G31")
async def test_batch_without_a_claim_is_not_committed(
    kafka_settings: KafkaSettings, topic: str, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    producer = await opened(owner, lane)
    batch = await unclaimed(owner, lane)
    batch.number.set_result(None)
    assert (await asyncio.to_thread(producer.publish, batch)).state is TransactionState.UNCLAIMED
    assert await asyncio.to_thread(read_topic, kafka_settings.bootstrap_servers, topic) == []
    takeover = await owner.take_over(lane)
    assert [each.last_id for each in takeover.opened] == [None]


class Unfinished(LaneProducer):
    """A producer whose id has a transaction that cannot end: one of its partitions accepts no writes."""

    def open(self, limit_s: float = 0.0) -> None:
        raise TransactionUnfinished("the lane's last transaction has not ended")


@pytest.fixture
def first_is_unfinished(kafka_settings: KafkaSettings, owner: Owner) -> NewProducer:
    """Make producers of which those with number 0 cannot open."""

    def make(lane: int, number: int) -> LaneProducer:
        if number > 0:
            return owner.new_producer(lane, number)
        return Unfinished(
            client_settings(kafka_settings),
            owner.markers,
            lane,
            0,
            batch_bytes=1_000,
            deadline=lambda: float("inf"),
        )

    return make


@pytest.mark.guarantee("G36")
async def test_lane_whose_transaction_cannot_end_gets_the_next_producer(
    topic: str, first_is_unfinished: NewProducer, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    former = await opened(owner, lane)
    batch = await taken(owner, lane)
    assert (await asyncio.to_thread(former.publish, batch)).state is TransactionState.COMMITTED
    takeover = await owner.take_over(lane, first_is_unfinished)
    [each] = takeover.opened
    assert each.last_id == batch.batch_id
    assert await producer_number(owner, lane) == 1
    following = await taken(owner, lane, batch)
    assert (await asyncio.to_thread(each.producer.publish, following)).state is TransactionState.COMMITTED
    again = await owner.take_over(lane, first_is_unfinished)
    assert [each.last_id for each in again.opened] == [following.batch_id]


async def in_open_transaction(owner: Owner, producer: LaneProducer, batch: LaneBatch) -> LatePublish:
    """Publish *batch* up to the decision about its commit, which the returned batch's number makes."""
    undecided = replace(batch, number=Future())
    publishing = asyncio.create_task(asyncio.to_thread(producer.publish, undecided))
    async with asyncio.timeout(WAIT_S):
        while not await asyncio.to_thread(owner.markers.lanes_with_open_transaction, [batch.lane]):  # noqa: ASYNC110 - Kafka sends no signal
            await asyncio.sleep(0.01)
    return undecided, publishing


@pytest.mark.guarantee("G36")
async def test_lane_waits_while_an_open_transaction_hides_its_marker(
    topic: str, first_is_unfinished: NewProducer, owner: Owner
) -> None:
    """A producer with the next transactional id does not end the transaction of the former producer."""
    lane = await owned(owner, topic)
    former = await opened(owner, lane)
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert [each.last_id for each in takeover.opened] == [None]
    undecided, publishing = await in_open_transaction(owner, former, await unclaimed(owner, lane))
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert takeover.opened == []
    assert isinstance(takeover.failed[lane], TransactionUnfinished)
    undecided.number.set_result(None)
    assert (await publishing).state is TransactionState.UNCLAIMED
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert [each.last_id for each in takeover.opened] == [None]


async def aborted(producer: LaneProducer, batch: LaneBatch) -> LaneBatch:
    """Publish *batch* in a transaction that is aborted; return the batch with its claim."""
    unconfirmed = replace(batch, number=Future())
    unconfirmed.number.set_result(None)
    assert (await asyncio.to_thread(producer.publish, unconfirmed)).state is TransactionState.UNCLAIMED
    return batch


@pytest.mark.guarantee("G36")
async def test_lane_of_a_former_owner_whose_batch_was_aborted_is_replaced(
    database: Database, topic: str, first_is_unfinished: NewProducer, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    former = await opened(owner, lane)
    first = await taken(owner, lane)
    assert (await asyncio.to_thread(former.publish, first)).state is TransactionState.COMMITTED
    await aborted(former, await taken(owner, lane, first))
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert [each.last_id for each in takeover.opened] == [first.batch_id]
    assert await producer_number(owner, lane) == 1
    assert [row["status"] for row in await rows_of(database)] == ["SENT", "PENDING", "PENDING"]


@pytest.mark.guarantee("G36")
@pytest.mark.guarantee("G31")
async def test_lane_whose_former_owner_may_still_commit_a_batch_waits(
    topic: str, first_is_unfinished: NewProducer, owner: Owner
) -> None:
    """The former owner is frozen after the claim and before it writes the marker."""
    lane = await owned(owner, topic)
    former = await opened(owner, lane)
    batch = await taken(owner, lane)
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert takeover.opened == []
    assert isinstance(takeover.failed[lane], TransactionUnfinished)
    assert await producer_number(owner, lane) == 0
    await aborted(former, batch)
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert [each.last_id for each in takeover.opened] == [None]


@pytest.mark.guarantee("G31")
async def test_lane_whose_claim_is_in_an_open_transaction_waits(
    topic: str, first_is_unfinished: NewProducer, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    former = await opened(owner, lane)
    batch = await taken(owner, lane)
    undecided, publishing = await in_open_transaction(owner, former, batch)
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert takeover.opened == []
    assert await producer_number(owner, lane) == 0
    undecided.number.set_result(1)
    assert (await publishing).state is TransactionState.COMMITTED
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert [each.last_id for each in takeover.opened] == [batch.batch_id]


@pytest.mark.guarantee("G36")
async def test_withdrawn_claim_does_not_delay_the_next_producer(
    topic: str, first_is_unfinished: NewProducer, owner: Owner
) -> None:
    lane = await owned(owner, topic)
    await opened(owner, lane)
    batch = await taken(owner, lane)
    claimed, withdrawals = replace(batch, number=Future()), Withdrawals()
    withdrawals.add(claimed)
    await withdrawals.record(owner.connection)
    assert (await owner.take_over(lane, first_is_unfinished)).opened == [], "the claim may still be written"
    claimed.number.set_result(batch.number.result())
    await withdrawals.record(owner.connection)
    takeover = await owner.take_over(lane, first_is_unfinished)
    assert [each.last_id for each in takeover.opened] == [None]


async def producer_number(owner: Owner, lane: Lane) -> int:
    """Return the number of the producer that *lane* uses."""
    query = "SELECT producer_number FROM relay_lanes WHERE lane = $1"
    [row] = await owner.connection.fetch(query, lane.lane)
    return row["producer_number"]
