"""A takeover knows all batches published before it, and no batch is published behind it (G31)."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import asyncpg
import pytest
from relaybox.db import Database, DedicatedConnection
from relaybox.local import LocalKafka
from relaybox.relay import _claims, _transaction
from relaybox.relay._batches import LaneBatch, TransactionState
from relaybox.relay._claims import claim, list_claims, origin_of
from relaybox.relay._errors import LinkDown, TransactionUnfinished
from relaybox.relay._kafka import BATCH_BYTES_MAX, client_settings
from relaybox.relay._lanes import Lanes
from relaybox.relay._postgres import Lane, connected, fetch_batch
from relaybox.relay._takeover import NewProducer, Reconciler, take_over
from relaybox.relay._transaction import LaneProducer, Markers
from relaybox.settings import KafkaSettings

from tests.fixtures.bounds import WAIT_S
from tests.fixtures.relays import put_events, read_topic, rows_of


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[DedicatedConnection]:
    """Open a connection as a relay does."""
    async with connected(database) as connection:
        yield connection


@pytest.fixture
async def markers(connection: DedicatedConnection, kafka_settings: KafkaSettings) -> Markers:
    return Markers(client_settings(kafka_settings), await origin_of(connection))


@pytest.fixture
def new_producer(kafka_settings: KafkaSettings, markers: Markers) -> Iterator[NewProducer]:
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

    yield make
    for producer in made:
        producer.close()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=4) as threads:
        yield threads


@pytest.fixture
def reconciler(kafka_settings: KafkaSettings) -> Reconciler:
    """Return a reconciler for a new database, whose lanes were published from in no earlier history."""
    return Reconciler(kafka_settings, uuid4())


async def owned(connection: DedicatedConnection, topic: str) -> Lane:
    """Return the owned lane that the three rows are in."""
    lanes = Lanes(lease_s=600)
    await lanes.renew(connection)
    await put_events(connection, topic, ["key"], count=3)
    [first] = await fetch_batch(connection, lanes.usable(), rows_max=1, in_flight=())
    return next(lane for lane in lanes.usable() if lane.lane == first.lane)


async def opened(lane: Lane, markers: Markers, new_producer: NewProducer) -> LaneProducer:
    """Return the opened producer of the lane's owner."""
    await asyncio.to_thread(markers.ensure_partitions, [lane.lane])
    producer = new_producer(lane.lane, 0)
    await asyncio.to_thread(producer.open)
    return producer


async def taken(connection: DedicatedConnection, lane: Lane, after: LaneBatch | None = None) -> LaneBatch:
    """Return the batch that the owner claims: the row *after* its last batch, whose row is not marked yet."""
    in_flight = [message.seq for message in after.messages] if after else ()
    messages = await fetch_batch(connection, [lane], rows_max=1, in_flight=in_flight)
    batch = LaneBatch(messages=messages, lanes=frozenset({lane.lane}))
    numbers = await claim(connection, [batch], {lane.lane: after.batch_id if after else None})
    batch.number.set_result(numbers[lane.lane])
    return batch


@pytest.mark.guarantee("G31")
async def test_takeover_knows_batches_published_until_the_fencing(
    database: Database,
    connection: DedicatedConnection,
    topic: str,
    markers: Markers,
    new_producer: NewProducer,
    threads: ThreadPoolExecutor,
    reconciler: Reconciler,
) -> None:
    lane = await owned(connection, topic)
    former = await opened(lane, markers, new_producer)
    first = await taken(connection, lane)
    assert (await asyncio.to_thread(former.publish, first)).state is TransactionState.COMMITTED
    last = await taken(connection, lane, first)

    def late(lane_number: int, number: int) -> LaneProducer:
        """Commit the transaction of the former owner at the last possible moment."""
        assert former.publish(last).state is TransactionState.COMMITTED
        return new_producer(lane_number, number)

    takeover = await take_over(connection, [lane], markers, late, threads, reconciler)
    assert [each.last_id for each in takeover.opened] == [last.batch_id]
    assert [row["status"] for row in await rows_of(database)] == ["SENT", "SENT", "PENDING"]
    [left] = (await list_claims(connection, [lane.lane]))[lane.lane]
    assert left.batch_id == last.batch_id, "what was settled is not looked at again"


@pytest.mark.guarantee("G31")
async def test_takeover_fences_the_former_owner(
    database: Database,
    connection: DedicatedConnection,
    kafka_settings: KafkaSettings,
    topic: str,
    markers: Markers,
    new_producer: NewProducer,
    threads: ThreadPoolExecutor,
    reconciler: Reconciler,
) -> None:
    lane = await owned(connection, topic)
    former = await opened(lane, markers, new_producer)
    batch = await taken(connection, lane)
    await take_over(connection, [lane], markers, new_producer, threads, reconciler)
    result = await asyncio.to_thread(former.publish, batch)
    assert result.state is not TransactionState.COMMITTED
    assert {row["status"] for row in await rows_of(database)} == {"PENDING"}
    assert await asyncio.to_thread(read_topic, kafka_settings.bootstrap_servers, topic) == []


@pytest.mark.guarantee("G29")
async def test_takeover_does_not_scan_the_whole_outbox(
    superuser: asyncpg.Connection,
    connection: DedicatedConnection,
    topic: str,
    markers: Markers,
    new_producer: NewProducer,
    threads: ThreadPoolExecutor,
    reconciler: Reconciler,
) -> None:
    lane = await owned(connection, topic)
    await superuser.execute("ANALYZE event_outbox")  # the table has one page
    await take_over(connection, [lane], markers, new_producer, threads, reconciler)
    recover = "EXPLAIN " + _claims._SQL["recover_lane"]
    plan = [
        row[0] for row in await connection.fetch(recover, lane.lane, lane.epoch, [1, 2, 3], [], uuid4(), None)
    ]
    assert not [line for line in plan if "Seq Scan on event_outbox" in line]


@pytest.mark.guarantee("G27")
async def test_stopping_relay_does_not_wait_for_markers(
    connection: DedicatedConnection, kafka_settings: KafkaSettings, kafka_server: LocalKafka
) -> None:
    gone = client_settings(kafka_settings), await origin_of(connection)
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


@pytest.mark.guarantee("G31")
async def test_batch_without_a_claim_is_not_committed(
    connection: DedicatedConnection,
    kafka_settings: KafkaSettings,
    topic: str,
    markers: Markers,
    new_producer: NewProducer,
    threads: ThreadPoolExecutor,
    reconciler: Reconciler,
) -> None:
    lane = await owned(connection, topic)
    owner = await opened(lane, markers, new_producer)
    messages = await fetch_batch(connection, [lane], rows_max=1, in_flight=())
    batch = LaneBatch(messages=messages, lanes=frozenset({lane.lane}))
    batch.number.set_result(None)
    assert (await asyncio.to_thread(owner.publish, batch)).state is TransactionState.UNCLAIMED
    assert await asyncio.to_thread(read_topic, kafka_settings.bootstrap_servers, topic) == []
    takeover = await take_over(connection, [lane], markers, new_producer, threads, reconciler)
    assert [each.last_id for each in takeover.opened] == [None]


class Unfinished(LaneProducer):
    """A producer whose id has a transaction that cannot end: one of its partitions accepts no writes."""

    def open(self, limit_s: float = 0.0) -> None:
        raise TransactionUnfinished("the lane's last transaction has not ended")


@pytest.fixture
def first_is_unfinished(
    kafka_settings: KafkaSettings, markers: Markers, new_producer: NewProducer
) -> NewProducer:
    """Make producers of which those with number 0 cannot open."""

    def make(lane: int, number: int) -> LaneProducer:
        if number > 0:
            return new_producer(lane, number)
        return Unfinished(
            client_settings(kafka_settings),
            markers,
            lane,
            0,
            batch_bytes=1_000,
            deadline=lambda: float("inf"),
        )

    return make


@pytest.mark.guarantee("G36")
async def test_lane_whose_transaction_cannot_end_gets_the_next_producer(
    connection: DedicatedConnection,
    markers: Markers,
    topic: str,
    new_producer: NewProducer,
    first_is_unfinished: NewProducer,
    threads: ThreadPoolExecutor,
    reconciler: Reconciler,
) -> None:
    lane = await owned(connection, topic)
    former = await opened(lane, markers, new_producer)
    batch = await taken(connection, lane)
    assert (await asyncio.to_thread(former.publish, batch)).state is TransactionState.COMMITTED
    takeover = await take_over(
        connection, [lane], markers, first_is_unfinished, threads, reconciler, replaceable=[lane]
    )
    [each] = takeover.opened
    assert each.last_id == batch.batch_id
    assert await producer_number(connection, lane) == 1
    following = await taken(connection, lane, batch)
    assert (await asyncio.to_thread(each.producer.publish, following)).state is TransactionState.COMMITTED
    again = await take_over(connection, [lane], markers, first_is_unfinished, threads, reconciler)
    assert [each.last_id for each in again.opened] == [following.batch_id]


@pytest.mark.guarantee("G36")
async def test_lane_waits_while_an_open_transaction_hides_its_marker(
    connection: DedicatedConnection,
    markers: Markers,
    topic: str,
    new_producer: NewProducer,
    first_is_unfinished: NewProducer,
    threads: ThreadPoolExecutor,
    reconciler: Reconciler,
) -> None:
    """A producer with the next transactional id does not end the transaction of the former producer."""
    lane = await owned(connection, topic)
    former = await opened(lane, markers, new_producer)
    messages = await fetch_batch(connection, [lane], rows_max=1, in_flight=())
    unclaimed = LaneBatch(messages=messages, lanes=frozenset({lane.lane}))
    publishing = asyncio.create_task(asyncio.to_thread(former.publish, unclaimed))
    async with asyncio.timeout(WAIT_S):
        while not await asyncio.to_thread(markers.lanes_with_open_transaction, [lane.lane]):  # noqa: ASYNC110 - Kafka sends no signal
            await asyncio.sleep(0.01)
    takeover = await take_over(
        connection, [lane], markers, first_is_unfinished, threads, reconciler, replaceable=[lane]
    )
    assert takeover.opened == []
    assert isinstance(takeover.failed[lane], TransactionUnfinished)
    unclaimed.number.set_result(None)
    assert (await publishing).state is TransactionState.UNCLAIMED
    takeover = await take_over(connection, [lane], markers, first_is_unfinished, threads, reconciler)
    assert [each.last_id for each in takeover.opened] == [None]


@pytest.mark.guarantee("G36")
async def test_lane_of_another_owner_waits_for_the_transaction_to_end(
    connection: DedicatedConnection,
    markers: Markers,
    topic: str,
    first_is_unfinished: NewProducer,
    threads: ThreadPoolExecutor,
    reconciler: Reconciler,
) -> None:
    lane = await owned(connection, topic)
    takeover = await take_over(connection, [lane], markers, first_is_unfinished, threads, reconciler)
    assert takeover.opened == []
    assert isinstance(takeover.failed[lane], TransactionUnfinished)
    assert await producer_number(connection, lane) == 0


async def producer_number(connection: DedicatedConnection, lane: Lane) -> int:
    """Return the number of the producer that *lane* uses."""
    query = "SELECT producer_number FROM relay_lanes WHERE lane = $1"
    [row] = await connection.fetch(query, lane.lane)
    return row["producer_number"]
