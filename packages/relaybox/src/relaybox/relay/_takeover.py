"""Take lanes over: fence the former owner, find out what it published, and record that (G31, G35)."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final
from uuid import UUID

import structlog

from relaybox.db import DedicatedConnection, load_queries
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
)
from relaybox.relay._errors import LaneFaulty, LinkDown, PublishedUnknown, TransactionUnfinished
from relaybox.relay._kafka import map_link_errors
from relaybox.relay._postgres import Lane, explain_missing_right, fetch_rows, use_partial_indexes
from relaybox.relay._transaction import INIT_S_MAX, PRODUCERS_PER_LANE, LaneProducer, Markers
from relaybox.settings import KafkaSettings
from relaybox.verify import Reader, TopicHeldBack, TopicMetadata, TopicUnreadable

__all__ = (
    "OpenedLane",
    "PublishedEvents",
    "Reconciler",
    "Takeover",
    "take_over",
)

_SQL: Final = load_queries(__package__ or "relaybox.relay", "relay.sql")
#: Topics are read from this time before the first claim: a record may be older than its claim, and clocks
#: differ (records have the time of a relay's host, claims the time of PostgreSQL's host).
_OLDER_S_MAX: Final = 300.0
_log = structlog.get_logger(__name__)
#: Creates a producer, without opening it, from the numbers of the lane and of the producer.
NewProducer = Callable[[int, int], LaneProducer]
#: Longest wait for the end of a lane's last transaction if the lane can get another producer instead.
_REPLACEABLE_S: Final = 2.0


class Reconciler:
    """Mark published rows again whose mark was lost in a failover of PostgreSQL.

    A failover can lose marks and claims of batches that are in Kafka. Their rows then look unpublished, and
    the marker is the id of a batch that the database does not know. Therefore the relay reads the topics from
    the time of the lanes' first stored claim to the end, and marks each row SENT whose event is there.
    """

    def __init__(self, kafka: KafkaSettings, history_id: UUID) -> None:
        self._kafka = kafka
        self.history_id = history_id

    def is_from_another_history(self, lane: OwnedLane) -> bool:
        """Return whether *lane* was last compared with Kafka in another history of PostgreSQL."""
        return lane.history_id not in (None, self.history_id)

    def is_needed(self, lane: OwnedLane, marker: UUID | None) -> bool:
        """Return whether *lane* is from another history, and its *marker* was not accepted."""
        return self.is_from_another_history(lane) and lane.accepted_marker != (marker or NO_MARKER)

    async def settle(
        self, connection: DedicatedConnection, lanes: Collection[Lane], threads: Executor
    ) -> None:
        """Mark the published rows of *lanes*; call this only after their former owners were fenced.

        Raises:
            LinkDown: The topics cannot be read now.
            PublishedUnknown: Records that are needed may have been removed from a topic.
            DatabaseError: PostgreSQL did not respond, or a right is missing.
        """
        if not lanes:
            return
        numbers, epochs = [lane.lane for lane in lanes], [lane.epoch for lane in lanes]
        rows = await fetch_rows(connection, _SQL["unsettled_topics"], numbers, epochs)
        if not rows:
            return
        since = {row["topic"]: row["since"] - timedelta(seconds=_OLDER_S_MAX) for row in rows}
        _log.warning(
            "relay reads from Kafka which events were published before the failover",
            lanes=numbers,
            topics=sorted(since),
        )
        with explain_missing_right("TEMPORARY on the database"):
            await fetch_rows(connection, _SQL["create_found"])
        in_thread = asyncio.get_running_loop().run_in_executor
        events = PublishedEvents(self._kafka, since)
        found = 0
        try:
            while (ids := await in_thread(threads, events.next_ids)) is not None:
                if ids:
                    await fetch_rows(connection, _SQL["add_found"], ids)
                    found += len(ids)
        finally:
            threads.submit(events.close)
        marked = await fetch_rows(connection, _SQL["mark_found"], numbers, epochs)
        await fetch_rows(connection, _SQL["drop_found"])
        _log.warning("relay has marked rows that were published", rows=len(marked), records=found)


class PublishedEvents:
    """Read the ids of events on topics in steps, from a time for each topic on. All methods block."""

    def __init__(self, kafka: KafkaSettings, since: Mapping[str, datetime]) -> None:
        self._kafka = kafka
        self._since = since
        self._reader: Reader | None = None
        #: Held during each call: :meth:`close` may be called while the step of a cancelled caller still runs.
        self._one_call = Lock()

    def next_ids(self) -> list[str] | None:
        """Return the next ids; an empty list if no record arrived yet; None after the last id.

        A call returns within seconds even if an open transaction hides later records, because the relay exits
        if a call to Kafka takes 60 s.

        Raises:
            LinkDown: The topics cannot be read now.
            PublishedUnknown: Records that are needed may have been removed from a topic.
        """
        with self._one_call:
            try:
                if self._reader is None:
                    self._reader = self._opened()
                if self._reader.done:
                    return None
                return [record.event_id for record in self._reader.read() if record.event_id is not None]
            except (TopicUnreadable, TopicHeldBack) as error:
                raise LinkDown(f"the topics cannot be read after a failover: {error}") from error

    def close(self) -> None:
        """Close the connections to Kafka."""
        with self._one_call:
            if self._reader is not None:
                self._reader.close()

    def _opened(self) -> Reader:
        with TopicMetadata(self._kafka) as topics:
            partitions = topics.partitions(self._since)
            starts = _starts(topics, partitions, self._since)
            return Reader(self._kafka, starts, topics.ends(partitions), "read_committed")


def _starts(
    topics: TopicMetadata, partitions: Mapping[str, int], since: Mapping[str, datetime]
) -> dict[tuple[str, int], int]:
    """Return the offset of the first record of each partition since the time in *since* for its topic.

    *partitions* has the number of partitions of each topic.

    Raises:
        PublishedUnknown: Some of the records since then may have been removed.
    """
    starts: dict[tuple[str, int], int] = {}
    for topic, retention in topics.retention(partitions).items():
        count = {topic: partitions[topic]}
        first, found = topics.beginnings(count), topics.beginnings(count, since[topic])
        age_s = (datetime.now(UTC) - since[topic]).total_seconds()
        if retention.compacted:
            raise PublishedUnknown(
                f"topic {topic} is compacted (cleanup.policy), so that records of published rows may have "
                "been removed; run relaybox verify, then relaybox relay accept"
            )
        cut = retention.by_size and any(found[place] == offset > 0 for place, offset in first.items())
        if cut or age_s > retention.kept_s:
            raise PublishedUnknown(
                f"retention may have removed records of topic {topic} later than {since[topic]:%F %T %Z}, so "
                "that published rows cannot be recognised; run relaybox verify, then relaybox relay accept"
            )
        starts |= found
    return starts


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
    #: Lanes whose marker and claims contradict each other; they wait for an operator.
    faulty: list[Lane] = field(default_factory=list[Lane])


async def take_over(
    connection: DedicatedConnection,
    lanes: Sequence[Lane],
    markers: Markers,
    new_producer: NewProducer,
    threads: Executor,
    reconciler: Reconciler,
    *,
    replaceable: Collection[Lane] = (),
) -> Takeover:
    """Open *lanes* in the only safe order: check the epoch, open the producer, read marker and claims.

    Opening the producer fences a former owner that resumes after the check of the epoch. A former owner that
    opens its producer later fences this relay, finds its epoch outdated, and stops. The next transaction of
    this relay then fails, and the relay takes the lane over again.

    *replaceable* are lanes whose last producer the caller opened, and of which it knows the outcome of each
    commit. If the last transaction of such a lane does not end, because a partition accepts no writes, the
    lane gets the next producer. Any other lane waits for that end, because a former owner could still commit.

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
    producers, failed = await _open_lanes(
        connection, known, held, new_producer, threads, reconciler, replaceable=replaceable
    )
    numbered = {lane.lane: lane for lane in producers if producers[lane].number > 0}
    for number in await in_thread(threads, markers.lanes_with_open_transaction, list(numbered)):
        lane = numbered[number]
        failed[lane] = TransactionUnfinished(f"an open transaction hides the last marker of lane {number}")
        threads.submit(producers.pop(lane).close)
    for lane, down in failed.items():
        _log.info("relay could not open a lane, trying again", lane=lane.lane, reason=str(down))
    takeover = Takeover(failed=failed)
    try:
        found = await in_thread(threads, markers.read_last, [lane.lane for lane in producers])
        await _settle(connection, producers, found, known, threads, reconciler, takeover)
    finally:
        kept = [each.lane for each in takeover.opened]
        for lane, producer in producers.items():
            if lane not in kept:
                threads.submit(producer.close)
    return takeover


async def _settle(
    connection: DedicatedConnection,
    producers: Mapping[Lane, LaneProducer],
    found: Mapping[int, UUID],
    known: Mapping[int, OwnedLane],
    threads: Executor,
    reconciler: Reconciler,
    takeover: Takeover,
) -> None:
    """Mark rows that former owners published, and open the lanes, or stop lanes with a contradiction.

    *found* has the id of the last committed batch by number of the lane; the result is added to *takeover*.
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
    _log.error("relay stops a lane", lane=lane.lane, error_code=fault.error_code, reason=str(fault))
    await report_fault(connection, lane, str(fault))


async def _open_lanes(
    connection: DedicatedConnection,
    known: Mapping[int, OwnedLane],
    lanes: Sequence[Lane],
    new_producer: NewProducer,
    threads: Executor,
    reconciler: Reconciler,
    *,
    replaceable: Collection[Lane],
) -> tuple[dict[Lane, LaneProducer], dict[Lane, LinkDown]]:
    """Open a producer for each of *lanes*; if that of a *replaceable* lane cannot open, open the next."""
    numbers = {lane: _numbers(known[lane.lane], reconciler) for lane in lanes}
    limits_s = {lane: _REPLACEABLE_S if lane in replaceable else INIT_S_MAX for lane in lanes}
    producers, failed = await _open_all(new_producer, numbers, limits_s, threads)
    stuck = [
        lane
        for lane, down in failed.items()
        if isinstance(down, TransactionUnfinished) and lane in replaceable
    ]
    if stuck:
        assigned = await assign_next_producers(connection, stuck)
        numbers = {lane: [assigned[lane.lane]] for lane in stuck if lane.lane in assigned}
        more, failed_again = await _open_all(new_producer, numbers, limits_s, threads)
        producers |= more
        failed = {lane: down for lane, down in failed.items() if lane not in more} | failed_again
    return producers, failed


def _numbers(lane: OwnedLane, reconciler: Reconciler) -> list[int]:
    """Return the numbers of the producers to open; the relay uses the last one.

    After a failover the database may have an old number of the lane's producer. Then producers with all four
    numbers are opened, because a producer with any of the lane's ids could still commit.
    """
    if not reconciler.is_from_another_history(lane):
        return [lane.producer_number]
    return [lane.producer_number + place for place in (*range(1, PRODUCERS_PER_LANE), 0)]


async def _open_all(
    new_producer: NewProducer,
    numbers: Mapping[Lane, Sequence[int]],
    limits_s: Mapping[Lane, float],
    threads: Executor,
) -> tuple[dict[Lane, LaneProducer], dict[Lane, LinkDown]]:
    """Open the producers with each lane's *numbers*; return the last one of each lane, or the error."""
    in_thread = asyncio.get_running_loop().run_in_executor
    opening = await asyncio.gather(
        *(
            in_thread(threads, _open_in_turn, new_producer, lane.lane, each, limits_s[lane])
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
    """Open the lane's producers with *numbers*, close all but the last; return the last, or the error."""
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
