"""The relay's main loop: fetch rows, publish them, and pass their outcomes to the recorder.

States of a row of the outbox::

    PENDING ─ fetch ─► fetched ─ send ─► in flight ─ acknowledged ─► published ─ mark ─► SENT
       ▲                  │                  │
       │ lane lost, or    │                  ├─ link failure ─► PENDING: nothing was recorded
       └─ earlier rows ───┘                  └─ row fault ─ charge ─┬─► PENDING, again after 1, 2, 4 s
          come first                                                └─► FAILED, its key is blocked

    PENDING or FAILED because of the link or a partition ─ requeue, once available again ─► PENDING

"Charge" counts a failed attempt. States of a batch (in brackets: only with exactly-once delivery)::

    prepared ─► in flight, [claimed] ─┬─► published [COMMITTED] ─► recorded ─► [older claims trimmed]
                                      ├─► rejected ─► [lane taken over] ─► rows published one by one
                                      ├─► [UNPUBLISHED, UNCLAIMED] ─► [lane taken over] ─► rows PENDING
                                      └─► [IN_DOUBT] ─► [lane taken over: the marker decides]

:func:`~relaybox.relay._plan.plan_next` decides the next action; :class:`PublishLoop` executes the action.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Final, assert_never

import structlog

from relaybox.db import DatabaseError, DedicatedConnection
from relaybox.periodic import wait_at_most
from relaybox.relay import _plan as plan
from relaybox.relay._background import Recorder
from relaybox.relay._batches import (
    Batch,
    Delivery,
    Fetches,
    InFlightBatches,
    Outcome,
    PendingFetch,
    RowReader,
)
from relaybox.relay._errors import LinkDown, link_pause_s
from relaybox.relay._lanes import Lanes, LeaseHeartbeat
from relaybox.relay._messages import Message
from relaybox.relay._plan import Breaker, BreakerState, FetchPhase, LoopState, plan_next, select_publishable
from relaybox.relay._postgres import (
    Connections,
    Lane,
    requeue_after_outage,
    seconds_until_due,
    use_partial_indexes,
)
from relaybox.relay._statistics import Counters, RelaySignal
from relaybox.settings import RelaySettings
from relaybox.signals import OnSignal

__all__ = ("PublishLoop",)

#: Longest wait for acknowledgements after :meth:`PublishLoop.stop`.
_STOP_ACKNOWLEDGEMENTS_S: Final = 5.0
#: In a backlog, the batches of all lanes start together. Lanes wait this long for a batch; then it is late.
_PROMPT_S: Final = 1.0
#: Interval of deleting old claims; a takeover reads all others. A backlog adds claims of 50,000 rows per s.
_TRIM_S: Final = 1.0
#: Longest wait until no row is in flight, so that lanes can be split; the next heartbeat tries again.
_QUIET_S: Final = 5.0
_log = structlog.get_logger(__name__)


class PublishLoop:
    """Publish rows of the outbox to Kafka.

    Invariants: a row is marked SENT only after Kafka has acknowledged it (G23). A batch of a lane starts only
    when the outcome of the lane's previous batch is known. Keys that failed in that batch are excluded (G34).
    An outcome is kept until PostgreSQL has recorded it; until then, the rows of the outcome are not fetched.
    """

    def __init__(
        self,
        connections: Connections,
        delivery: Delivery,
        settings: RelaySettings,
        lanes: Lanes,
        heartbeat: LeaseHeartbeat,
        counters: Counters,
        on_signal: OnSignal[RelaySignal],
    ) -> None:
        self._connections = connections
        self._delivery = delivery
        self._settings = settings
        self._lanes = lanes
        self._heartbeat = heartbeat
        self._counters = counters
        self._signal = on_signal
        self._stopping = asyncio.Event()
        self.breaker = Breaker()
        self.in_flight = InFlightBatches()
        self._reader = RowReader(settings, heartbeat.low_watermark, counters)
        self._fetches = Fetches()
        #: The caller must run :meth:`Recorder.run` concurrently with :meth:`run`.
        self.recorder = Recorder(
            connections, counters, on_signal, on_settled=delivery.note_recorded, on_change=self._recorded
        )
        self._ready_lanes: Sequence[Lane] = ()
        #: Whether the relay owns a lane, and all its lanes are ready.
        self._all_ready = False
        self._refreshed = False
        self._idle = False
        #: Whether the last fetch returned rows of which none could be published.
        self._held_back = False
        #: Lane and epoch of each lane whose rows were made PENDING again after the last outage.
        self._requeued: set[tuple[int, int]] = set()
        #: Whether some rows are not requeued yet, because failures of their lanes must be recorded first.
        self._requeue_waits = False
        self._database_failures = 0
        self._trim_at_s = 0.0

    def requeue_soon(self) -> None:
        """Make rows that waited for a partition or for Kafka PENDING again, in the next cycle of the loop."""
        self._requeued.clear()
        self._fetches.invalidate_all()  # requeued rows must be published before the rows being read
        self._heartbeat.work_available.set()

    def stop(self) -> None:
        """Make :meth:`run` return: fetch no more rows, and wait at most 5 s for acknowledgements."""
        self._stopping.set()
        self._heartbeat.work_available.set()
        self._delivery.set_deadline(time.monotonic() + _STOP_ACKNOWLEDGEMENTS_S)

    async def run(self) -> None:
        """Publish until :meth:`stop`; wait and retry while PostgreSQL or Kafka is unavailable."""
        try:
            await self._delivery.connect()
        except LinkDown as down:
            self._trip(down, [])
        while not self._stopping.is_set():
            try:
                async with (
                    self._connections.connected() as reading,
                    self._connections.connected() as connection,
                ):
                    await use_partial_indexes(reading)
                    await use_partial_indexes(connection)
                    await self._work(reading, connection)
            except DatabaseError as error:
                self._database_failures += 1
                if self._database_failures == 1:
                    _log.warning(
                        "relay cannot read or update the outbox in PostgreSQL, trying again",
                        error_code=error.error_code,
                        reason=str(error),
                    )
                await wait_at_most(self._stopping, link_pause_s(self._database_failures))
        await self.in_flight.wait_for_all()
        self._collect_finished()

    async def _work(self, reading: DedicatedConnection, connection: DedicatedConnection) -> None:
        """Execute actions until ``Stop``; fetches use *reading*, so no other statement waits for a fetch."""
        self._refreshed = self._idle = False
        try:
            while True:
                action = plan_next(self._state())
                match action:
                    case plan.Stop():
                        return
                    case plan.Reconnect():
                        await self._reconnect()
                    case plan.Refresh():
                        await self._refresh(connection)
                    case plan.Split():
                        await self._split(connection)
                    case plan.Fetch() as fetch:
                        self._start_fetch(reading, fetch)
                    case plan.Receive():
                        await self._fetches.first().reading
                    case plan.Publish() as publish:
                        await self._publish_fetched(connection, publish)
                    case plan.Wait():
                        await self._wait_for_work(connection)
                    case _:
                        assert_never(action)
        finally:
            await self._fetches.cancel()

    def _state(self) -> LoopState:
        phase, rows_read, stale = FetchPhase.NONE, 0, False
        if self._fetches:
            first = self._fetches.first()
            phase, stale = FetchPhase.READING, bool(first.stale_lanes)
            if first.reading.done():
                phase, rows_read = FetchPhase.READ, len(first.reading.result())
        late = [each for each in self.in_flight if each.late]
        return LoopState(
            stopping=self._stopping.is_set(),
            breaker=self.breaker.state,
            idle=self._idle,
            refreshed=self._refreshed,
            split_wanted=self._lanes.split_wanted,
            fetch=phase,
            rows_read=rows_read,
            fetching_ahead=len(self._fetches) > 1,
            rows_held_back=stale or self._held_back,
            batch_size=self._settings.batch_size,
            batch_rows=self._reader.batch_rows,
            ready_lanes=[lane.lane for lane in self._ready_lanes],
            paused_lanes=self._delivery.paused_lanes(),
            in_flight_lanes=frozenset(self.in_flight.lanes()),
            late_lanes=frozenset(lane for each in late for lane in each.batch.lanes),
            late_rows=sum(len(each.batch.messages) for each in late),
            one_batch_at_a_time=self._delivery.one_batch_at_a_time,
        )

    async def _refresh(self, connection: DedicatedConnection) -> None:
        if not self._fetches:  # otherwise a notification may be about rows that a running query does not see
            self._heartbeat.work_available.clear()
        usable = self._lanes.usable()
        self._ready_lanes = self._delivery.ready(usable)
        self._all_ready = len(self._ready_lanes) == len(usable) > 0
        await self._requeue_after_outage(connection)
        if not self._lanes.split_wanted:
            await self.recorder.wait_for_room()
        self._refreshed = True

    async def _requeue_after_outage(self, connection: DedicatedConnection) -> None:
        """Make rows that failed with the reason ``link`` PENDING again, in lanes that are ready now."""
        # Not in lanes with failures that are not recorded yet: recording them later would undo the requeue.
        charging = self.recorder.charging_lanes()
        self._requeue_waits = bool(charging)
        new = [
            lane
            for lane in self._ready_lanes
            if (lane.lane, lane.epoch) not in self._requeued and lane.lane not in charging
        ]
        if new:
            rows = await requeue_after_outage(connection, new)
            self._requeued.update((lane.lane, lane.epoch) for lane in new)
            if rows:
                _log.info("relay requeued rows that failed in an outage", rows=rows)

    async def _split(self, connection: DedicatedConnection) -> None:
        """Split the lanes if all outcomes are recorded within 5 s; else the next heartbeat tries again."""
        self._refreshed = False
        try:
            async with asyncio.timeout(_QUIET_S):
                await self.in_flight.wait_for_all()
                self._collect_finished()
                await self.recorder.wait_until_empty()
        except TimeoutError:
            self._lanes.postpone_split()
            return
        self._fetches.invalidate_all()  # fetched rows may belong to the new lanes
        made = await self._lanes.split(connection, self._delivery.ready(self._lanes.usable()))
        if made:
            _log.info("relay split its lanes", new_lanes=made)

    def _start_fetch(self, connection: DedicatedConnection, fetch: plan.Fetch) -> None:
        """Start to read rows, except rows that are already read, in flight, or not recorded yet."""
        lanes = [lane for lane in self._ready_lanes if lane.lane in fetch.lanes]
        read = self._fetches.first().reading.result() if self._fetches else ()
        seqs = [message.seq for message in (*read, *self.in_flight.messages())] + self.recorder.seqs()
        probing = self.breaker.state is BreakerState.HALF_OPEN
        reading = self._reader.read(connection, lanes, seqs, fetch.rows_max, probing=probing)
        self._fetches.start(reading, lanes, self.recorder.blocked_keys())

    async def _publish_fetched(self, connection: DedicatedConnection, publish: plan.Publish) -> None:
        """Collect finished batches, and start the batches of the rows that were read."""
        fetch = self._fetches.first()
        fetched = fetch.reading.result()
        if publish.wait_for_in_flight:
            await self.in_flight.wait_for_prompt(None if self._delivery.one_batch_at_a_time else _PROMPT_S)
        # No await from here to _select, which needs the outcomes of all batches that have finished.
        finished = self._collect_finished()
        if link_failure := self._delivery.take_link_failure():
            self._trip(link_failure, [])
        self._fetches.remove_first()
        started: Sequence[Batch] = ()
        if self.breaker.state is not BreakerState.OPEN:
            started = await self._publish(connection, self._select(fetched, fetch))
        self._fetches.invalidate_not_started(fetched, started)
        self._held_back = bool(fetched) and not started
        self._update_busy_lanes()
        await self._trim_claims(connection)
        if self._database_failures:
            _log.info("relay reads the outbox again")
            self._database_failures = 0
        self._refreshed = False
        # Reading stale rows again, and publishing rows that were read ahead, need no notification.
        self._idle = not (started or finished or fetch.stale_lanes or self._fetches)

    def _collect_finished(self) -> bool:
        """Pass the outcomes of finished batches to the recorder; return whether a batch had finished."""
        finished = self.in_flight.take_finished()
        for each in finished:
            outcome = each.outcome.result()
            if len(outcome.sent) < len(each.batch.messages):
                self._fetches.invalidate(each.batch.lanes)
            self.recorder.add(each.batch, outcome)
            if outcome.link is not None:
                self._trip(outcome.link, outcome.interrupted)
            elif outcome.sent and self.breaker.published():
                _log.info("relay publishes again")
                self._signal(RelaySignal.LINK_UP)
            self._signal(RelaySignal.BATCH_PUBLISHED)
        return bool(finished)

    def _select(self, fetched: Sequence[Message], fetch: PendingFetch) -> Sequence[Message]:
        """Return the *fetched* rows whose lane is still owned and not busy, and whose key is not blocked."""
        if self._delivery.one_batch_at_a_time and self.in_flight:
            return []
        usable = {(lane.lane, lane.epoch) for lane in self._lanes.usable()}
        busy = self.in_flight.lanes() | fetch.stale_lanes
        if not fetch.fences <= usable:
            # Another relay may have split a lost lane, and this relay may have taken one half of the lane.
            self._fetches.invalidate_all()
        return select_publishable(
            fetched,
            fetched_fences=fetch.fences,
            usable_fences=usable,
            busy_lanes=busy,
            blocked_keys=fetch.blocked_keys | self.recorder.blocked_keys(),
        )

    async def _publish(self, connection: DedicatedConnection, messages: Sequence[Message]) -> Sequence[Batch]:
        """Start, claim and return batches of *messages*; pass faulty rows to the recorder."""
        prepared = await self._delivery.prepare(messages)
        if prepared.outcome.faulty:
            self._fetches.invalidate(message.lane for message, _ in prepared.outcome.faulty)
            self.recorder.add(None, prepared.outcome)
        for batch in prepared.batches:
            outcome = self._delivery.publish(batch)
            outcome.add_done_callback(lambda _: self._heartbeat.work_available.set())
            self.in_flight.add(batch, outcome)
        if prepared.batches:
            self._signal(RelaySignal.BATCH_TAKEN)
            self._update_busy_lanes()  # before a heartbeat can release one of these lanes
            await self._delivery.claim(connection, prepared.batches)
            self._signal(RelaySignal.BATCH_CLAIMED)
        if prepared.outcome.link:
            self._trip(prepared.outcome.link, [])
        return prepared.batches

    def _recorded(self) -> None:
        """Update the busy lanes, and wake the loop if rows waited until the outcomes were recorded."""
        self._update_busy_lanes()
        if self._held_back or self._requeue_waits:
            self._heartbeat.work_available.set()

    def _update_busy_lanes(self) -> None:
        """Set the busy lanes: a lane is released only when all its published rows are marked SENT."""
        self._lanes.set_busy(frozenset(self.in_flight.lanes() | self.recorder.lanes()))
        if self._lanes.has_idle_surplus():
            self._heartbeat.renew_now.set()

    async def _trim_claims(self, connection: DedicatedConnection) -> None:
        if time.monotonic() >= self._trim_at_s:
            await self._delivery.trim_claims(connection)
            self._trim_at_s = time.monotonic() + _TRIM_S

    async def _wait_for_work(self, connection: DedicatedConnection) -> None:
        self._idle = False
        poll_s = self._settings.poll_interval
        if self.in_flight:
            await wait_at_most(self._heartbeat.work_available, poll_s)
            return
        due_s = await seconds_until_due(connection, fetched_s=self._reader.idle_s())
        await self._delivery.serve_callbacks()
        if self._all_ready:
            self._signal(RelaySignal.IDLE)
        await wait_at_most(self._heartbeat.work_available, poll_s if due_s is None else min(poll_s, due_s))
        if not self._heartbeat.work_available.is_set() and (due_s is None or due_s > poll_s):
            self._reader.note_poll()

    def _trip(self, down: LinkDown, interrupted: Sequence[Message]) -> None:
        """Open the circuit breaker: fetch no rows, and keep the lanes."""
        self._requeued.clear()
        self._fetches.invalidate_all()  # requeued rows must be published before the rows being read
        if self.breaker.trip(down, interrupted, time.monotonic()):
            self._counters.link_outages_total += 1
            _log.warning("relay has lost Kafka, trying again", error_code=down.error_code, reason=str(down))
            self._signal(RelaySignal.LINK_DOWN)

    async def _reconnect(self) -> None:
        """Count due failures of rows that were in flight; pause, and try once to reach a broker."""
        self._collect_finished()
        if due := self.breaker.due(time.monotonic()):
            self.recorder.add(None, Outcome(faulty=due))
        self._update_busy_lanes()
        await wait_at_most(self._stopping, self.breaker.pause_s())
        if self._stopping.is_set():
            return
        try:
            await self._delivery.connect()
        except LinkDown:
            self.breaker.failed_again()
        else:
            self.breaker.note_response()
            self._fetches.invalidate_all()  # the probe is one row, read now
            self._reader.reset()
            _log.info("relay has reached Kafka again")
