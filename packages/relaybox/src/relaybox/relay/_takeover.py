"""Taking a lane over: shut its former owner out, learn what it published, settle it (G31)."""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from relaybox.db import DedicatedConnection
from relaybox.relay._errors import LaneFaulty, LinkDown
from relaybox.relay._lane_claims import accepted_markers, claims_of, recover, report_fault
from relaybox.relay._lanes import Lane
from relaybox.relay._link import link_faults
from relaybox.relay._markers import Markers
from relaybox.relay._rows import plan_for_backlogs
from relaybox.relay._transaction import LaneProducer
from relaybox.relay._verdict import judge

__all__ = ("Opened", "Takeover", "take_over")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A lane that may be published from."""

    lane: Lane
    producer: LaneProducer
    #: The batch of it that was published last.
    last_id: UUID | None


@dataclass(kw_only=True, slots=True)
class Takeover:
    """What became of the lanes that were to be taken over; those in no list have another owner."""

    opened: list[Opened] = field(default_factory=list[Opened])
    failed: list[Lane] = field(default_factory=list[Lane])
    #: Kafka and the database disagree about them; an operator decides.
    faulty: list[Lane] = field(default_factory=list[Lane])


async def take_over(
    connection: DedicatedConnection,
    lanes: Sequence[Lane],
    markers: Markers,
    new_producer: Callable[[int], LaneProducer],
    threads: Executor,
) -> Takeover:
    """Open *lanes*, in the only order that is safe: epoch, producer, marker, then what was claimed.

    A former owner that wakes up between our look at the epoch and our opening is shut out by it; one
    that opens after us shuts us out, sees that its epoch is gone, and stops; our next transaction
    fails and the lane is taken over again.

    Raises:
        LinkDown: the control topic cannot be reached or made.
        DatabaseError: PostgreSQL did not answer.
    """
    await plan_for_backlogs(connection)
    accepted = await accepted_markers(connection, lanes)
    held = [lane for lane in lanes if lane.lane in accepted]
    if not held:
        return Takeover()
    in_thread = asyncio.get_running_loop().run_in_executor
    await in_thread(threads, markers.ensure, [lane.lane for lane in held])
    opening = await asyncio.gather(*(in_thread(threads, _open, new_producer, lane.lane) for lane in held))
    producers = {lane: producer for lane, producer in zip(held, opening, strict=True) if producer is not None}
    takeover = Takeover(failed=[lane for lane in held if lane not in producers])
    try:
        numbers = [lane.lane for lane in producers]
        found = await in_thread(threads, markers.read, numbers)
        claims = await claims_of(connection, numbers)
        for lane, producer in producers.items():
            try:
                verdict = judge(lane.lane, found.get(lane.lane), accepted[lane.lane], claims[lane.lane])
            except LaneFaulty as fault:
                await _stop_lane(connection, lane, fault)
                takeover.faulty.append(lane)
                continue
            if await recover(connection, lane, verdict):
                takeover.opened.append(Opened(lane=lane, producer=producer, last_id=verdict.last_id))
    finally:
        kept = [each.lane for each in takeover.opened]
        for lane, producer in producers.items():
            if lane not in kept:
                threads.submit(producer.close)
    return takeover


async def _stop_lane(connection: DedicatedConnection, lane: Lane, fault: LaneFaulty) -> None:
    _log.error("relay stops a lane", lane=lane.lane, error_code=fault.error_code, reason=str(fault))
    await report_fault(connection, lane, str(fault))


def _open(new_producer: Callable[[int], LaneProducer], lane: int) -> LaneProducer | None:
    """The lane's producer, or None if the brokers did not manage in time."""
    producer: LaneProducer | None = None
    try:
        with link_faults():
            producer = new_producer(lane)
        producer.open()
    except LinkDown as error:
        _log.info("relay could not open a lane, trying again", lane=lane, reason=str(error))
        if producer is not None:
            producer.close()
        return None
    return producer
