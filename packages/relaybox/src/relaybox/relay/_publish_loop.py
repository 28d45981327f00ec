"""The relay's work: fetch, publish, record, over and over."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog

from relaybox.db import DatabaseError, DedicatedConnection
from relaybox.relay._backoff import Breaker, BreakerState, link_pause_s, next_batch_rows, wait_at_most
from relaybox.relay._batches import Batch, Delivery, Fetch, Fetches, InFlightBatches, Outcome
from relaybox.relay._errors import LinkDown
from relaybox.relay._lanes import Lanes, LeaseHeartbeat
from relaybox.relay._messages import Message
from relaybox.relay._postgres import (
    Connections,
    Lane,
    fetch_batch,
    requeue_after_outage,
    seconds_until_due,
    use_partial_indexes,
)
from relaybox.relay._recorder import Recorder
from relaybox.relay._statistics import Counters, OnSignal, Signal
from relaybox.settings import RelaySettings

__all__ = ("PublishLoop",)

#: After :meth:`PublishLoop.stop`, how long to wait for acknowledgements.
_STOP_ACKNOWLEDGEMENTS_S: Final = 5.0
#: In a backlog all lanes take off together, after one look at the table; who is later than this is not
#: waited for.
_PROMPT_S: Final = 1.0
#: Whoever takes a lane over looks at all that was claimed since: in a backlog 50,000 rows a second.
_TRIM_S: Final = 1.0
#: Lanes are split when nothing is in flight; if that takes longer, at the next heartbeat.
_QUIET_S: Final = 5.0
_log = structlog.get_logger(__name__)


class PublishLoop:
    """Moves rows from PostgreSQL to Kafka.

    Invariants: a row is marked only after its acknowledgement (G23). A lane's batch takes off only
    after the one before has landed, and without the keys that failed in it (G34). An outcome is
    remembered until PostgreSQL has recorded it, and its rows are not fetched before that.
    """

    def __init__(
        self,
        connections: Connections,
        delivery: Delivery,
        settings: RelaySettings,
        lanes: Lanes,
        heartbeat: LeaseHeartbeat,
        counters: Counters,
        on_signal: OnSignal,
    ) -> None:
        self._connections = connections
        self._delivery = delivery
        self._settings = settings
        self._lanes = lanes
        self._heartbeat = heartbeat
        self._counters = counters
        self._signal = on_signal
        self._stopping = asyncio.Event()
        self.in_flight = InFlightBatches()
        self._fetches = Fetches()
        self._batch_rows = settings.batch_size
        self._database_failures = 0
        self._fetched_at_s = 0.0
        self._trim_at_s = 0.0
        self._ready = False
        #: Nothing of what was fetched last could take off.
        self._held_back = False
        #: Nobody told of the rows that come next: the last wait ended by itself.
        self._polled = False
        #: Lanes whose rows that failed in an outage were taken up again, by epoch.
        self._requeued: set[tuple[int, int]] = set()
        #: Rows of a lane are taken up only when the recorder has charged those that it holds.
        self._requeue_waits = False
        self.breaker = Breaker()
        #: To be run beside :meth:`run`.
        self.recorder = Recorder(
            connections, counters, on_signal, settled=delivery.note_recorded, changed=self._recorded
        )

    def requeue_soon(self) -> None:
        """Take up again, at the next cycle, the rows that waited for a partition or for the link."""
        self._requeued.clear()
        self._fetches.invalidate_all()  # what is taken up again comes before what is read now
        self._heartbeat.work_available.set()

    def stop(self) -> None:
        """Have :meth:`run` return: nothing more is fetched, acknowledgements are awaited 5 s at the most."""
        self._stopping.set()
        self._heartbeat.work_available.set()
        self._delivery.set_deadline(time.monotonic() + _STOP_ACKNOWLEDGEMENTS_S)

    async def run(self) -> None:
        """Work until :meth:`stop`; either server away is waited out."""
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
                        "relay cannot use the outbox, trying again",
                        error_code=error.error_code,
                        reason=str(error),
                    )
                await wait_at_most(self._stopping, link_pause_s(self._database_failures))
        await self.in_flight.wait_for_all()
        self._collect_finished()

    async def close(self) -> None:
        """Drop what is not acknowledged (it is PENDING) and the connections to Kafka."""
        await self._delivery.close()

    async def _work(self, reading: DedicatedConnection, connection: DedicatedConnection) -> None:
        """Move rows, read over one connection; the other is for all else, which does not wait for it."""
        try:
            while not self._stopping.is_set():
                if self.breaker.state is BreakerState.OPEN:
                    await self._try_link()
                    continue
                moved = await self._cycle(reading, connection)
                if self._database_failures:
                    _log.info("relay reads the outbox again")
                    self._database_failures = 0
                if not moved:
                    await self._wait_for_work(connection)
        finally:
            await self._fetches.cancel()

    async def _cycle(self, reading: DedicatedConnection, connection: DedicatedConnection) -> bool:
        """Fetch while the last batches fly, land them, start the next, record the last; whether it moved."""
        if not self._fetches:  # else the news may be of rows that what was read ahead does not see
            self._heartbeat.work_available.clear()
        usable = self._lanes.usable()
        lanes = self._delivery.ready(usable)
        self._ready = len(lanes) == len(usable) > 0
        await self._requeue_after_outage(connection, lanes)
        if self._lanes.split_wanted:
            if await self._quiet():
                await self._split_lanes(connection, usable)
            return True  # what landed, and the lanes made, are not in what was asked above
        await self.recorder.wait_for_room()
        if not self._fetches:
            self._start_fetch(reading, lanes)
        fetch = self._fetches.first()
        fetched = await fetch.reading
        if fetched and self._in_backlog():
            # Not behind rows of a stale lane: they would stay behind again, and bar it for good.
            if not self._held_back and not fetch.stale_lanes:
                self._start_fetch(reading, lanes, known=fetched)
            await self.in_flight.wait_for_prompt(None if self._delivery.one_batch_at_a_time else _PROMPT_S)
        # Not one await between here and the choice of what may take off.
        finished = self._collect_finished()
        if link_failure := self._delivery.take_link_failure():
            self._trip(link_failure, [])
        self._fetches.remove_first()
        started: Sequence[Batch] = ()
        if self.breaker.state is not BreakerState.OPEN:
            started = await self._publish(connection, self._free(fetched, fetch))
        self._fetches.invalidate_not_started(fetched, started)
        self._held_back = bool(fetched) and not started
        self._update_busy_lanes()
        await self._trim_claims(connection)
        # What was stale has to be read anew, what was read ahead is there: neither need wait for news.
        return bool(started or finished or fetch.stale_lanes or self._fetches)

    def _start_fetch(
        self, connection: DedicatedConnection, lanes: Sequence[Lane], known: Sequence[Message] = ()
    ) -> None:
        """Read behind the rows that are *known* and have yet to take off, in flight, or not recorded.

        Without a backlog only lanes that are idle and do not rest; with one, ahead of the result.
        """
        self._fetched_at_s = time.monotonic()
        ahead = [each for each in self.in_flight if self._in_backlog() and not each.late]
        busy = {lane for each in self.in_flight if each not in ahead for lane in each.batch.lanes}
        if not self._in_backlog():
            busy |= self._delivery.paused_lanes()
        lanes = [lane for lane in lanes if lane.lane not in busy]
        if len(self.in_flight) > len(ahead) and (self._probing() or self._delivery.one_batch_at_a_time):
            lanes = []
        seqs = [message.seq for message in (*known, *self.in_flight.messages())] + self.recorder.seqs()
        self._fetches.start(self._fetch(connection, lanes, seqs), lanes, self.recorder.waiting_keys())

    async def _fetch(
        self, connection: DedicatedConnection, lanes: Sequence[Lane], known: Sequence[int]
    ) -> list[Message]:
        """The next rows of *lanes* that may be published, without the *known* ones."""
        if not lanes:
            return []
        # Less while some lanes stall: what they hold is held too.
        limit = max(self._settings.batch_size, self._batch_rows - self.in_flight.late_rows())
        limit = 1 if self._probing() else limit
        low_watermark = self._heartbeat.low_watermark
        fetched = await fetch_batch(
            connection,
            lanes,
            rows_max=limit,
            in_flight=known,
            start_seq=low_watermark.poll_start(),
            cloudevents=self._settings.cloudevents,
        )
        if fetched:
            await low_watermark.advance(connection, fetched[-1].seq)
        if self._polled:
            self._counters.polled_total += len(fetched)
            self._polled = False
        if not self._probing():
            self._batch_rows = next_batch_rows(limit, len(fetched), self._settings.batch_size)
        return fetched

    def _in_backlog(self) -> bool:
        return self._batch_rows > self._settings.batch_size

    def _probing(self) -> bool:
        return self.breaker.state is BreakerState.HALF_OPEN

    def _collect_finished(self) -> bool:
        """Take in what has landed; whether anything has."""
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
                self._signal(Signal.LINK_UP)
            self._signal(Signal.BATCH_PUBLISHED)
        return bool(finished)

    async def _split_lanes(self, connection: DedicatedConnection, usable: Sequence[Lane]) -> None:
        self._fetches.invalidate_all()  # what is read may belong to the new lanes
        made = await self._lanes.split(connection, self._delivery.ready(usable))
        if made:
            _log.info("relay split its lanes", made=made)

    async def _quiet(self) -> bool:
        """Let everything land and be recorded; whether nothing is in flight then."""
        try:
            async with asyncio.timeout(_QUIET_S):
                await self.in_flight.wait_for_all()
                self._collect_finished()
                await self.recorder.wait_until_empty()
        except TimeoutError:
            self._lanes.split_wanted = False
            return False
        return True

    def _free(self, fetched: Sequence[Message], fetch: Fetch) -> Sequence[Message]:
        """Of *fetched*, what may take off now: lanes may have gone, and keys failed, since it was read."""
        if self._delivery.one_batch_at_a_time and self.in_flight:
            return []
        busy = self.in_flight.lanes() | fetch.stale_lanes
        waiting = fetch.waiting | self.recorder.waiting_keys()
        fences = {(lane.lane, lane.epoch) for lane in self._lanes.usable()}
        if not fetch.fences <= fences:
            # A lane that this relay lost may have been split elsewhere, and come back by halves.
            self._fetches.invalidate_all()
        elif not busy and not waiting:
            return fetched
        return [
            m for m in fetched if m.lane not in busy and (m.lane, m.epoch) in fences and m.key not in waiting
        ]

    async def _publish(self, connection: DedicatedConnection, messages: Sequence[Message]) -> Sequence[Batch]:
        """Start *messages*, as far as the delivery lets them; what took off."""
        prepared = await self._delivery.prepare(messages)
        if prepared.outcome.faulty:
            self._fetches.invalidate(message.lane for message, _ in prepared.outcome.faulty)
            self.recorder.add(None, prepared.outcome)
        for batch in prepared.batches:
            outcome = self._delivery.publish(batch)
            outcome.add_done_callback(lambda _: self._heartbeat.work_available.set())
            self.in_flight.add(batch, outcome)
        if prepared.batches:
            self._signal(Signal.BATCH_TAKEN)
            self._update_busy_lanes()  # before a heartbeat may give a lane back
            await self._delivery.claim(connection, prepared.batches)
            self._signal(Signal.BATCH_CLAIMED)
        if down := prepared.outcome.link:
            self._trip(down, [])
        return prepared.batches

    def _recorded(self) -> None:
        """Less is held by the recorder; what waited for that may be fetched again."""
        self._update_busy_lanes()
        if self._held_back or self._requeue_waits:
            self._heartbeat.work_available.set()

    def _update_busy_lanes(self) -> None:
        """Tell the keeper which lanes are busy and how the link is.

        A lane given back before its rows are marked would have them published again by its next owner.
        """
        self._lanes.busy = frozenset(self.in_flight.lanes() | self.recorder.lanes())
        self._heartbeat.breaker = self.breaker.state.value
        if self._lanes.has_idle_surplus():
            self._heartbeat.renew_now.set()

    async def _requeue_after_outage(self, connection: DedicatedConnection, lanes: Sequence[Lane]) -> None:
        """Rows that failed because of the link, in lanes that can be published from, are as they were."""
        # A charge of the outage that is not written down yet would come after it.
        charging = self.recorder.charging_lanes()
        self._requeue_waits = bool(charging)
        new = [
            lane
            for lane in lanes
            if (lane.lane, lane.epoch) not in self._requeued and lane.lane not in charging
        ]
        if new:
            rows = await requeue_after_outage(connection, new)
            self._requeued.update((lane.lane, lane.epoch) for lane in new)
            if rows:
                _log.info("relay takes rows up again that an outage made fail", rows=rows)

    async def _trim_claims(self, connection: DedicatedConnection) -> None:
        if time.monotonic() >= self._trim_at_s:
            await self._delivery.trim_claims(connection)
            self._trim_at_s = time.monotonic() + _TRIM_S

    async def _wait_for_work(self, connection: DedicatedConnection) -> None:
        if self.in_flight:
            await wait_at_most(self._heartbeat.work_available, self._settings.poll_interval)
            return
        due_s = await seconds_until_due(connection, fetched_s=time.monotonic() - self._fetched_at_s)
        await self._delivery.serve_callbacks()
        if self._ready:
            self._signal(Signal.IDLE)
        poll_s = self._settings.poll_interval
        await wait_at_most(self._heartbeat.work_available, poll_s if due_s is None else min(poll_s, due_s))
        self._polled = not self._heartbeat.work_available.is_set() and (due_s is None or due_s > poll_s)

    def _trip(self, down: LinkDown, interrupted: Sequence[Message]) -> None:
        """Nothing more is fetched; the lanes stay this relay's."""
        self._requeued.clear()
        self._fetches.invalidate_all()  # what is taken up again comes before what is read now
        if self.breaker.trip(down, interrupted, time.monotonic()):
            self._counters.link_outages_total += 1
            _log.warning("relay has lost Kafka, trying again", error_code=down.error_code, reason=str(down))
            self._signal(Signal.LINK_DOWN)

    async def _try_link(self) -> None:
        """Ask for a broker once, after a while; charge what the outage caught in flight when that is due."""
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
            self.breaker.answered()
            self._fetches.invalidate_all()  # the probe is one row, read now
            self._batch_rows = self._settings.batch_size
            _log.info("relay has reached Kafka again")
