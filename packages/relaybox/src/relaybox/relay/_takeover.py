"""Take lanes (slices of keys) over: fence the former owner, and record what it published (G31, G36)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from relaybox.db import DedicatedConnection
from relaybox.relay._claims import (
    NO_MARKER,
    OwnedLane,
    assign_next_producers,
    list_claims,
    owned_lanes,
    plan_recovery,
    plan_recovery_after_history_change,
    record_recovery,
    report_fault,
    unpublished_claims,
)
from relaybox.relay._errors import LaneFaulty, LinkDown, PublishedUnknown, TransactionUnfinished
from relaybox.relay._kafka import map_link_errors
from relaybox.relay._postgres import Lane, use_partial_indexes
from relaybox.relay._reconcile import Reconciler
from relaybox.relay._transaction import INIT_S_MAX, PRODUCERS_PER_LANE, LaneProducer, Markers

__all__ = (
    "OpenedLane",
    "Takeover",
    "take_over",
)

_log = structlog.get_logger(__name__)
#: Creates a producer, without opening it, from the numbers of the lane and of the producer.
NewProducer = Callable[[int, int], LaneProducer]


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedLane:
    """A lane from which the relay may publish."""

    lane: Lane
    producer: LaneProducer
    #: Id of the last published batch; None if no batch was published.
    last_id: UUID | None


@dataclass(kw_only=True, slots=True)
class Takeover:
    """Result of a takeover. Lanes in none of its fields have another owner."""

    opened: list[OpenedLane] = field(default_factory=list[OpenedLane])
    #: Lanes whose producer could not be opened or whose marker could not be read, with the error.
    failed: dict[Lane, LinkDown] = field(default_factory=dict[Lane, LinkDown])
    #: Lanes that wait for an operator: their marker and claims contradict each other, or after a failover the
    #: topics do not show which rows were published.
    faulty: list[Lane] = field(default_factory=list[Lane])


async def take_over(
    connection: DedicatedConnection,
    lanes: Sequence[Lane],
    markers: Markers,
    new_producer: NewProducer,
    threads: Executor,
    reconciler: Reconciler,
    *,
    open_s_max: float = INIT_S_MAX,
) -> Takeover:
    """Open *lanes* in the only safe order: check the epoch, open the producer, read marker and claims.

    Opening the producer fences a former owner that resumes after the check of the epoch. If a former owner
    opens its producer later, it fences the producer of this relay. The former owner then finds its own epoch
    outdated and publishes nothing. The next transaction of this relay fails, and this relay takes the lane
    over again.

    The last transaction of a lane cannot end while a partition that it wrote to accepts no writes. If the
    transaction has not ended after *open_s_max* seconds, the lane switches to its next producer, which has
    another ``transactional.id``. The lane does not switch while a batch of the lane may still be committed.

    Args:
        connection: A connection outside a transaction.
        lanes: Lanes that this relay has leased.
        markers: Reads the markers.
        new_producer: Creates the producer of a lane.
        threads: Threads for blocking calls to Kafka.
        reconciler: Marks published rows after a failover.
        open_s_max: Longest initialisation of a producer, in seconds.

    Raises:
        LinkDown: The control topic cannot be reached or created, or topics cannot be read after a failover.
        DatabaseError: PostgreSQL did not respond.
    """
    await use_partial_indexes(connection)
    known = await owned_lanes(connection, lanes)
    held = [lane for lane in lanes if lane.lane in known]
    if not held:
        return Takeover()
    in_thread = asyncio.get_running_loop().run_in_executor
    await in_thread(threads, markers.ensure_partitions, [lane.lane for lane in held])
    numbers = {lane: _numbers(known[lane.lane], reconciler) for lane in held}
    producers, failed = await _open_all(new_producer, numbers, open_s_max, threads)
    takeover = Takeover(failed=failed)
    try:
        next_numbers = await _next_numbers(connection, numbers, failed, markers, threads)
        more, failed_again = await _open_all(new_producer, next_numbers, open_s_max, threads)
        producers |= more
        takeover.failed = {lane: failed[lane] for lane in failed if lane not in more} | failed_again
        await _fail_hidden(producers, markers, threads, takeover)
        found = await in_thread(threads, markers.read_last, [lane.lane for lane in producers])
        await _settle(connection, producers, found, known, threads, reconciler, takeover)
    finally:
        kept = [each.lane for each in takeover.opened]
        for lane, producer in producers.items():
            if lane not in kept:
                threads.submit(producer.close)
    for lane, down in takeover.failed.items():
        _log.info("relay could not open a lane, trying again", lane=lane.lane, reason=str(down))
    return takeover


async def _fail_hidden(
    producers: dict[Lane, LaneProducer], markers: Markers, threads: Executor, takeover: Takeover
) -> None:
    """Move each lane whose last marker may be hidden by an open transaction to ``takeover.failed``.

    Such a lane is removed from *producers*. Lanes with the producer number 0 are not checked: they have used
    no other ``transactional.id``, so opening the producer has ended any open transaction. After a failover
    the number may be wrong, but then producers with all ids of the lane were opened.
    """
    numbered = {lane.lane: lane for lane in producers if producers[lane].number > 0}
    in_thread = asyncio.get_running_loop().run_in_executor
    for number in await in_thread(threads, markers.lanes_with_open_transaction, list(numbered)):
        lane = numbered[number]
        reason = (
            f"an open transaction may hide the last marker of lane {number}; the relay retries until it "
            "ends: Kafka aborts it after about 45 s (transaction.timeout.ms) if its partitions accept writes"
        )
        takeover.failed[lane] = TransactionUnfinished(reason)
        threads.submit(producers.pop(lane).close)


async def _settle(
    connection: DedicatedConnection,
    producers: Mapping[Lane, LaneProducer],
    found: Mapping[int, UUID],
    known: Mapping[int, OwnedLane],
    threads: Executor,
    reconciler: Reconciler,
    takeover: Takeover,
) -> None:
    """Mark rows that former owners published, and open lanes, or stop lanes that need an operator.

    Args:
        connection: A connection outside a transaction.
        producers: The opened producer of each lane.
        found: Marker (id of the last committed batch) by lane number; lanes without a marker are left out.
        known: State in ``relay_lanes`` by lane number.
        threads: Threads for blocking calls to Kafka.
        reconciler: Marks published rows after a failover.
        takeover: Gets the opened lanes and the faulty lanes.
    """
    unsettled = {lane for lane in producers if reconciler.is_needed(known[lane.lane], found.get(lane.lane))}
    try:
        await reconciler.settle(connection, unsettled, threads)
    except PublishedUnknown as unknown:
        producers = {lane: producer for lane, producer in producers.items() if lane not in unsettled}
        for lane in unsettled:
            marker = found.get(lane.lane, NO_MARKER)
            await _stop_lane(
                connection, lane, LaneFaulty(f"lane {lane.lane}: Kafka's marker is {marker}; {unknown}")
            )
        takeover.faulty.extend(unsettled)
    claims = await list_claims(connection, [lane.lane for lane in producers])
    for lane, producer in producers.items():
        marker, claimed = found.get(lane.lane), claims[lane.lane]
        try:
            plan = (
                plan_recovery_after_history_change(marker, claimed)
                if lane in unsettled
                else plan_recovery(lane.lane, marker, known[lane.lane].accepted_marker, claimed)
            )
        except LaneFaulty as fault:
            await _stop_lane(connection, lane, fault)
            takeover.faulty.append(lane)
            continue
        if await record_recovery(connection, lane, plan, reconciler.history_id):
            takeover.opened.append(OpenedLane(lane=lane, producer=producer, last_id=plan.last_id))


async def _stop_lane(connection: DedicatedConnection, lane: Lane, fault: LaneFaulty) -> None:
    _log.error(
        "lane publishes nothing until an operator decides; run `relaybox verify`, then `relaybox "
        "relay accept`",
        lane=lane.lane,
        error_code=fault.error_code,
        reason=str(fault),
    )
    await report_fault(connection, lane, str(fault))


async def _next_numbers(
    connection: DedicatedConnection,
    numbers: Mapping[Lane, Sequence[int]],
    failed: Mapping[Lane, LinkDown],
    markers: Markers,
    threads: Executor,
) -> dict[Lane, list[int]]:
    """Assign the next producer to *failed* lanes whose last transaction has not ended.

    A lane gets none if one of its batches may still be committed, or while a relay of an older version runs.
    A lane with several *numbers* gets none either: it is taken over after a failover, in which PostgreSQL may
    have lost a claim of the lane.

    Returns:
        The assigned producer number of each lane that got one, as a list of one number.
    """
    stuck = [
        lane
        for lane, down in failed.items()
        if isinstance(down, TransactionUnfinished) and len(numbers[lane]) == 1
    ]
    if not stuck:
        return {}
    certain = await _lanes_without_doubt(connection, stuck, markers, threads)
    assigned = await assign_next_producers(connection, certain)
    return {lane: [assigned[lane.lane]] for lane in certain if lane.lane in assigned}


async def _lanes_without_doubt(
    connection: DedicatedConnection, lanes: Sequence[Lane], markers: Markers, threads: Executor
) -> list[Lane]:
    """Return those of *lanes* of which no claimed batch can be committed any more.

    A relay commits only batches that it claimed, and former owners cannot claim since this relay has the
    epoch. A claimed batch can no longer be committed if its marker was written, and no transaction is open
    on the marker's partition. Without the marker a former owner, perhaps frozen, may still commit the batch.
    """
    numbers = [lane.lane for lane in lanes]
    in_thread = asyncio.get_running_loop().run_in_executor
    # Read before *hidden*, because the transaction of a marker that is written later may still be open.
    written = await in_thread(threads, markers.written, numbers)
    hidden = await in_thread(threads, markers.lanes_with_open_transaction, numbers)
    last = await in_thread(threads, markers.read_last, [number for number in numbers if number not in hidden])
    claims = await list_claims(connection, numbers)
    return [
        lane
        for lane in lanes
        if lane.lane not in hidden
        and all(
            claim.batch_id in written[lane.lane]
            for claim in unpublished_claims(last.get(lane.lane), claims[lane.lane])
        )
    ]


def _numbers(lane: OwnedLane, reconciler: Reconciler) -> list[int]:
    """Return the numbers of the producers to open; the relay uses the last one.

    After a failover the database may have an old number of the lane's producer. Then producers with all four
    numbers are opened, because a producer with any of the lane's four ``transactional.id``s could still
    commit.
    """
    if not reconciler.is_from_another_history(lane):
        return [lane.producer_number]
    return [lane.producer_number + place for place in (*range(1, PRODUCERS_PER_LANE), 0)]


async def _open_all(
    new_producer: NewProducer,
    numbers: Mapping[Lane, Sequence[int]],
    limit_s: float,
    threads: Executor,
) -> tuple[dict[Lane, LaneProducer], dict[Lane, LinkDown]]:
    """Open the producers *numbers* of each lane, one after the other; close all but the last of each lane.

    Returns:
        The open producer by lane, and for lanes whose producer could not be opened, the error by lane.
    """
    in_thread = asyncio.get_running_loop().run_in_executor
    opening = await asyncio.gather(
        *(
            in_thread(threads, _open_in_turn, new_producer, lane.lane, each, limit_s)
            for lane, each in numbers.items()
        )
    )
    opened = dict(zip(numbers, opening, strict=True))
    return (
        {lane: one for lane, one in opened.items() if not isinstance(one, LinkDown)},
        {lane: one for lane, one in opened.items() if isinstance(one, LinkDown)},
    )


def _open_in_turn(
    new_producer: NewProducer, lane: int, numbers: Sequence[int], limit_s: float
) -> LaneProducer | LinkDown:
    """Open the producers *numbers* one after the other, and close all but the last.

    Returns:
        The last producer; or the error of the first producer that could not be opened.
    """
    opened: LaneProducer | LinkDown | None = None
    for number in numbers:
        if isinstance(opened, LaneProducer):
            opened.close()
        opened = _open(new_producer, lane, number, limit_s)
        if isinstance(opened, LinkDown):
            break
    assert opened is not None
    return opened


def _open(new_producer: NewProducer, lane: int, number: int, limit_s: float) -> LaneProducer | LinkDown:
    """Create and open the lane's producer *number* within *limit_s*; return the producer, or the error."""
    producer: LaneProducer | None = None
    try:
        with map_link_errors():
            producer = new_producer(lane, number)
        producer.open(limit_s)
    except LinkDown as error:
        if producer is not None:
            producer.close()
        return error
    return producer
