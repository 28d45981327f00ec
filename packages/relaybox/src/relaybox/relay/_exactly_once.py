"""Deliver exactly once: each batch is one Kafka transaction with the batch's id, the marker (G31)."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, TypeVar
from uuid import UUID

import structlog

from relaybox.db import DatabaseError, DedicatedConnection
from relaybox.kafka import CallThreads
from relaybox.relay._batches import Batch, LaneBatch, Outcome, Prepared, TransactionResult, TransactionState
from relaybox.relay._claims import RejectionIsolator, Withdrawals, claim, origin_of, trim
from relaybox.relay._errors import LinkDown
from relaybox.relay._kafka import BATCH_BYTES_MAX, BrokerClient, batch_bytes_for, client_settings
from relaybox.relay._lanes import LaneFailures, TransactionPause
from relaybox.relay._messages import Message, screen, topics_exceeded, withhold
from relaybox.relay._postgres import Connections, Lane
from relaybox.relay._reconcile import Reconciler
from relaybox.relay._takeover import Takeover, take_over
from relaybox.relay._transaction import INIT_S_MAX, LaneProducer, Markers
from relaybox.settings import Compression, KafkaSettings
from relaybox.topics import PartitionWatch, Replication

__all__ = ("ExactlyOnce",)

T = TypeVar("T")
#: Maximum number of concurrent transactions, one per lane; the threads mostly wait for the brokers.
_THREADS: Final = 16
#: Pause before the next takeover of a faulty lane, whose marker an operator may have accepted by then.
_FAULTY_PAUSE_S: Final = 5.0
#: Longest wait for the end of a lane's last transaction while a partition accepts no writes.
_OPEN_S_MAX: Final = 2.0
_UNKNOWN: Final = "the takeover did not complete; see the relay's log and `relaybox relay status`"
_UNCLAIMED: Final = "PostgreSQL did not record a batch, or another relay owns the lane; see the relay's log"
_log = structlog.get_logger(__name__)


@dataclass(kw_only=True, slots=True)
class _OpenLane:
    """A lane whose takeover is complete: former owners are fenced, their batches are recorded."""

    epoch: int
    producer: LaneProducer
    #: Id of the last published batch; None: no batch was published.
    last_id: UUID | None
    in_flight: bool = False
    pause: TransactionPause = field(default_factory=TransactionPause)
    #: Number of the last claim whose outcome is recorded, and the number below which all claims are deleted.
    settled: int = 0
    trimmed: int = 0


class ExactlyOnce:
    """One transactional producer per lane (slice of keys); see :class:`~relaybox.relay._batches.Delivery`.

    Invariants: the relay publishes from a lane only after the takeover has recorded what former owners
    published. The relay claims a batch in PostgreSQL before it requests the commit, and claims the next batch
    of the lane only when the outcome is known. After any error of a transaction the relay closes the producer
    and takes the lane over again; the lane's marker in Kafka then shows whether the batch was published.
    """

    one_batch_at_a_time = False

    def __init__(
        self,
        connections: Connections,
        settings: KafkaSettings,
        *,
        compression: Compression,
        replication: Replication,
        partitions: PartitionWatch,
        wake: Callable[[], None],
    ) -> None:
        """Create the delivery; *replication* is for a new control topic, *wake* wakes the publish loop."""
        self._connections = connections
        self._settings = settings
        self._replication = replication
        self._connection = client_settings(settings)
        self._producing = {**self._connection, "compression.type": compression}
        self._partitions = partitions
        self._wake = wake
        self._link = BrokerClient(self._connection)
        self._markers: Markers | None = None
        self._open: dict[int, _OpenLane] = {}
        self._failures = LaneFailures(time.monotonic)
        self._withdrawals = Withdrawals()
        self._isolator = RejectionIsolator()
        self._opening: asyncio.Task[None] | None = None
        self._link_failure: LinkDown | None = None
        self._checking: asyncio.Task[list[str]] | None = None
        self._batch_bytes = BATCH_BYTES_MAX
        self._give_up_at_s = float("inf")
        self._threads = CallThreads(_THREADS, "relay-lane")
        self._link_thread = CallThreads(1, "relay-link")

    async def connect(self) -> None:
        """Connect to a broker; :meth:`ready` opens the lanes."""
        await self._ask_link(self._link.connect)

    def ready(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return those of *lanes* that are open, and start to take the others over in the background."""
        epochs = {lane.lane: lane.epoch for lane in lanes}
        self._failures.forget_others(epochs)
        for number, open_lane in list(self._open.items()):
            if epochs.get(number) != open_lane.epoch and not open_lane.in_flight:
                self._drop(number)
        closed = [lane for lane in lanes if lane.lane not in self._open and self._may_open(lane.lane)]
        if self._opening is not None and self._opening.done():
            opening, self._opening = self._opening, None
            opening.result()  # an unexpected error is a defect, and ends the relay
        if closed and self._opening is None:
            self._opening = asyncio.create_task(self._open_lanes(closed))
        return [lane for lane in lanes if self._is_open(lane)]

    def paused_lanes(self) -> frozenset[int]:
        """Return the open lanes whose next transaction should not start yet."""
        now_s = time.monotonic()
        return frozenset(number for number, each in self._open.items() if each.pause.remaining_s(now_s) > 0)

    async def prepare(self, messages: Sequence[Message]) -> Prepared:
        """Return a batch for each open lane, and the faulty rows; other rows stay PENDING."""
        outcome = Outcome(faulty=self._isolator.take_confirmed())
        messages = self._isolator.without_keys_of(messages, outcome.faulty)
        if not messages:
            return Prepared(batches=[], outcome=outcome)
        if self._partitions.unavailable:
            messages, held = withhold(messages, self._partitions.unavailable)
            outcome.faulty += held
        topics = {message.topic for message in messages}
        try:
            limits = self._link.cached_limits(topics) or await self._ask_link(
                lambda: self._link.limits(topics)
            )
            screened = screen(messages, limits)
            if exceeded := topics_exceeded(screened):
                limits = await self._ask_link(lambda: self._link.refresh_limits(exceeded))
                screened = screen(messages, limits)
        except LinkDown as down:
            outcome.link = down
            return Prepared(batches=[], outcome=outcome)
        outcome.faulty += screened.faulty
        self._partitions.add(topics & limits.keys())
        self._limit_batch_bytes(batch_bytes_for(topics, limits))
        by_lane: dict[int, list[Message]] = defaultdict(list)
        for message in self._isolator.one_per_lane(screened.publishable):
            by_lane[message.lane].append(message)
        batches = [
            LaneBatch(messages=rows, lanes=frozenset({lane}))
            for lane, rows in sorted(by_lane.items())
            if lane in self._open
        ]
        return Prepared(batches=batches, outcome=outcome)

    def publish(self, batch: Batch) -> asyncio.Task[Outcome]:
        """Publish *batch* in a transaction of its lane."""
        assert isinstance(batch, LaneBatch)
        open_lane = self._open[batch.lane]
        open_lane.in_flight = True
        if not self._isolator.is_isolating(batch.lane):
            open_lane.pause.note_start(time.monotonic(), rows=len(batch.messages))
        transaction = self._in_thread(partial(open_lane.producer.publish, batch))
        return asyncio.create_task(self._finish(batch, open_lane, transaction))

    async def claim(self, connection: DedicatedConnection, batches: Sequence[Batch]) -> None:
        """Claim *batches* while their records are being sent, because both take about the same time."""
        claimed = [batch for batch in batches if isinstance(batch, LaneBatch)]
        numbers: dict[int, int] = {}
        try:
            last_ids = {batch.lane: self._open[batch.lane].last_id for batch in claimed}
            numbers = await claim(connection, claimed, last_ids)
        finally:
            for batch in claimed:
                batch.number.set_result(numbers.get(batch.lane))

    def note_recorded(self, batch: Batch) -> None:
        """Note that the outcome of *batch* is recorded in PostgreSQL.

        If *batch* is the last one that its lane published, :meth:`trim_claims` may delete the older claims.
        """
        assert isinstance(batch, LaneBatch)
        open_lane = self._open.get(batch.lane)
        if open_lane is not None and open_lane.last_id == batch.batch_id:
            open_lane.settled = batch.number.result() or 0

    async def trim_claims(self, connection: DedicatedConnection) -> None:
        """Delete, in each lane, the claims before the last claim whose outcome is recorded."""
        due = {number: each for number, each in self._open.items() if each.settled > each.trimmed}
        if due:
            settled = {(number, each.epoch): each.settled for number, each in due.items()}
            await trim(connection, settled)
            for number, each in due.items():
                each.trimmed = settled[number, each.epoch]

    def take_link_failure(self) -> LinkDown | None:
        """Return and forget the last failure of the link to Kafka in a takeover; None if there is none."""
        link_failure, self._link_failure = self._link_failure, None
        return link_failure

    def stuck_lanes(self) -> dict[int, str]:
        """Return the reasons, by lane number, of lanes whose takeovers or batches have failed for 10 s."""
        return self._failures.stuck(self._open)

    def hung(self) -> bool:
        """Return whether a call of a batch, a takeover or the admin client has taken more than 60 s."""
        return self._threads.hung() or self._link_thread.hung()

    def set_deadline(self, monotonic_s: float) -> None:
        """Wait for brokers only until *monotonic_s*; the next owner resolves transactions in doubt."""
        self._give_up_at_s = monotonic_s

    async def serve_callbacks(self) -> None:
        """Execute due callbacks of the admin client."""
        await self._ask_link(self._link.serve_callbacks)

    async def close(self) -> None:
        """Close all lanes and clients."""
        self.set_deadline(0.0)
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
        producers = [open_lane.producer for open_lane in self._open.values()]
        self._open.clear()
        await asyncio.gather(*(self._in_thread(producer.close) for producer in producers))
        await self._ask_link(self._link.close)
        self._threads.shutdown(wait=False)
        self._link_thread.shutdown(wait=False)

    async def _open_lanes(self, lanes: Sequence[Lane]) -> None:
        opened: set[int] = set()
        reasons: dict[Lane, str] = {}
        faulty: list[Lane] = []
        try:
            async with self._connections.connected() as connection:
                takeover = await self._take_over(connection, lanes)
            for each in takeover.opened:
                self._isolator.confirm(each.lane.lane, each.last_id)
                self._open[each.lane.lane] = _OpenLane(
                    epoch=each.lane.epoch, producer=each.producer, last_id=each.last_id
                )
                opened.add(each.lane.lane)
            faulty = takeover.faulty
            if takeover.failed:
                reasons = {lane: str(down) for lane, down in takeover.failed.items()}
                await self._handle_open_failure(None)
        except LinkDown as down:
            reasons = dict.fromkeys(lanes, str(down))
            await self._handle_open_failure(down)
        except DatabaseError as error:
            reasons = dict.fromkeys(lanes, str(error))
            _log.info(
                "relay cannot take lanes over, trying again", error_code=error.error_code, reason=str(error)
            )
        finally:
            for lane in lanes:
                if lane.lane not in opened:
                    pause_s = _FAULTY_PAUSE_S if lane in faulty else 0.0
                    self._pause(lane.lane, reasons.get(lane, _UNKNOWN), at_least_s=pause_s)
            self._wake()

    async def _take_over(self, connection: DedicatedConnection, lanes: Sequence[Lane]) -> Takeover:
        await self._withdrawals.record(connection)
        markers = await self._known_markers(connection)
        try:
            return await take_over(
                connection,
                lanes,
                markers,
                self._new_producer,
                self._threads,
                Reconciler(self._settings, self._connections.history_id),
                open_s_max=_OPEN_S_MAX if self._partitions.unavailable else INIT_S_MAX,
            )
        finally:  # not before: the watch removes a topic that is missing, and the takeover may create it
            self._partitions.add([markers.topic])

    async def _known_markers(self, connection: DedicatedConnection) -> Markers:
        if self._markers is None:
            origin = await origin_of(connection)
            self._markers = Markers(
                self._connection, origin, replication=self._replication, deadline=self._end_s
            )
        return self._markers

    async def _handle_open_failure(self, down: LinkDown | None) -> None:
        """After failed takeovers, log *down* (None: nothing) if a broker responds, else store the failure."""
        self._partitions.check_now()
        try:
            await self._check_link()
        except LinkDown as link:
            self._link_failure = link
        else:
            if down is not None:
                _log.info("relay could not open lanes, trying again", reason=str(down))

    async def _finish(
        self, batch: LaneBatch, open_lane: _OpenLane, transaction: asyncio.Future[TransactionResult]
    ) -> Outcome:
        result = await transaction
        open_lane.in_flight = False
        open_lane.pause.note_end(time.monotonic())
        asyncio.get_running_loop().call_later(open_lane.pause.remaining_s(time.monotonic()), self._wake)
        if result.state is TransactionState.COMMITTED:
            open_lane.last_id = batch.batch_id
            self._failures.clear(batch.lane)
            self._isolator.note_published(batch)
            return Outcome(sent=list(batch.messages))
        if self._open.get(batch.lane) is not open_lane:
            return Outcome()  # the delivery was closed in the meantime
        if result.state is not TransactionState.IN_DOUBT:
            self._withdrawals.add(batch)
        if result.state is TransactionState.UNCLAIMED:
            self._drop(batch.lane)
            self._pause(batch.lane, _UNCLAIMED)
            return Outcome()
        _log.info(
            "batch not confirmed as published; relay takes the lane over again",
            lane=batch.lane,
            state=result.state.value,
            reason=str(result.error),
        )
        self._drop(batch.lane)
        self._pause(batch.lane, f"a batch failed: {result.error}")
        self._partitions.check_now()
        # Read all limits again: one may have been lowered, or a topic deleted.
        await self._ask_link(self._link.forget_limits)
        if result.refused:
            assert result.error is not None
            self._isolator.note_rejected(batch, result.error)
            return Outcome()
        return await self._check_link_after_failure(batch, result)

    async def _check_link_after_failure(self, batch: LaneBatch, result: TransactionResult) -> Outcome:
        if self._give_up_at_s < float("inf"):
            return Outcome()  # the relay stops; the next owner of the lane finds the cause
        try:
            await self._check_link()
        except LinkDown as down:
            interrupted = list(batch.messages) if result.state is TransactionState.UNPUBLISHED else []
            return Outcome(link=down, interrupted=interrupted)
        return Outcome()

    def _is_open(self, lane: Lane) -> bool:
        open_lane = self._open.get(lane.lane)
        return open_lane is not None and open_lane.epoch == lane.epoch

    def _may_open(self, number: int) -> bool:
        """Return whether to open lane *number* now: its pause is over, and its marker can be read.

        All markers are read together: a marker that cannot be read would fail the takeover of all lanes.
        """
        if not self._failures.may_retry(number):
            return False
        topic = None if self._markers is None else self._partitions.unavailable.get(self._markers.topic)
        reason = None if topic is None else topic.reasons.get(number)
        if reason is not None:
            self._pause(number, reason)
        return reason is None

    def _limit_batch_bytes(self, batch_bytes: int) -> None:
        """Lower ``batch.size`` to *batch_bytes*, by new producers: brokers would reject larger batches."""
        self._batch_bytes = min(self._batch_bytes, batch_bytes)
        for number, open_lane in list(self._open.items()):
            if open_lane.producer.batch_bytes > self._batch_bytes and not open_lane.in_flight:
                self._drop(number)

    def _new_producer(self, lane: int, number: int) -> LaneProducer:
        assert self._markers is not None
        return LaneProducer(
            self._producing, self._markers, lane, number, batch_bytes=self._batch_bytes, deadline=self._end_s
        )

    def _end_s(self) -> float:
        return self._give_up_at_s

    def _pause(self, number: int, reason: str, *, at_least_s: float = 0.0) -> None:
        pause_s = self._failures.record(number, reason, at_least_s=at_least_s)
        asyncio.get_running_loop().call_later(pause_s, self._wake)

    def _drop(self, number: int) -> None:
        """Close the idle producer of lane *number*; :meth:`ready` may then take the lane over again."""
        open_lane = self._open.pop(number)
        self._threads.submit(open_lane.producer.close)
        self._wake()

    async def _check_link(self) -> None:
        """Check that a broker responds, by one request for all lanes that check at the same time."""
        if self._checking is None or self._checking.done():
            self._checking = asyncio.create_task(self._ask_link(self._link.check))
        await asyncio.shield(self._checking)

    def _in_thread(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def _ask_link(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._link_thread, work)
