"""The relay's work: fetch, publish, record, over and over, one batch in flight."""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from relaybox.db import Database, DatabaseError, DedicatedConnection
from relaybox.relay._ask import connected
from relaybox.relay._backoff import Retry, link_pause_s, next_batch_rows
from relaybox.relay._errors import LinkDown
from relaybox.relay._keeper import Keeper, wait_at_most
from relaybox.relay._lanes import Lanes
from relaybox.relay._messages import Message
from relaybox.relay._publisher import Outcome, Publisher
from relaybox.relay._rows import (
    charge_for,
    charge_rows,
    fetch_batch,
    mark_sent,
    plan_for_backlogs,
    seconds_until_due,
)
from relaybox.relay._signals import OnSignal, Signal
from relaybox.relay._statistics import Counters
from relaybox.settings import RelaySettings

__all__ = ("Pump",)

#: After :meth:`Pump.stop`, how long to wait for acknowledgements.
_STOP_FLIGHT_S: Final = 5.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Flight:
    """A batch that was handed to the publisher."""

    messages: Sequence[Message]
    outcome: asyncio.Future[Outcome]


class Pump:
    """Moves rows from PostgreSQL to Kafka.

    Invariants: a row is marked only after its acknowledgement (G23). A batch takes off only after
    the one before has landed, and without the keys that failed in it (G34). An outcome is
    remembered until PostgreSQL has recorded it, and nothing is fetched before that unless it is
    excluded as in flight.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publisher,
        settings: RelaySettings,
        lanes: Lanes,
        keeper: Keeper,
        counters: Counters,
        on_signal: OnSignal,
    ) -> None:
        self._database = database
        self._publisher = publisher
        self._settings = settings
        self._lanes = lanes
        self._keeper = keeper
        self._counters = counters
        self._signal = on_signal
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="relay-publisher")
        self._stopping = asyncio.Event()
        self._flight: _Flight | None = None
        self._unrecorded: list[Outcome] = []
        self._batch_rows = settings.batch_size
        self._database_failures = 0
        self._fetched_at_s = 0.0
        #: Failures in a row to reach Kafka; 0 while it answers.
        self.link_failures = 0

    @property
    def in_flight(self) -> Sequence[Message]:
        """Rows handed to the publisher whose fate is not known."""
        return self._flight.messages if self._flight else ()

    def stop(self) -> None:
        """Have :meth:`run` return: nothing more is fetched, acknowledgements are awaited 5 s at the most."""
        self._stopping.set()
        self._keeper.news.set()
        self._publisher.give_up_at(time.monotonic() + _STOP_FLIGHT_S)

    async def run(self) -> None:
        """Work until :meth:`stop`; either server away is waited out."""
        await self._first_connect()
        while not self._stopping.is_set():
            try:
                async with connected(self._database) as connection:
                    await plan_for_backlogs(connection)
                    await self._record(connection)
                    await self._work(connection)
            except DatabaseError as error:
                self._database_failures += 1
                if self._database_failures == 1:
                    _log.warning("relay cannot read the outbox, trying again", error_code=error.error_code)
                await wait_at_most(self._stopping, link_pause_s(self._database_failures))

    async def settle(self) -> None:
        """After :meth:`run`: wait for what is in flight and record it."""
        await self._land()
        if self._unrecorded:
            async with connected(self._database) as connection:
                await self._record(connection)

    async def close(self) -> None:
        """Drop what is not acknowledged (it is PENDING) and the connections to Kafka."""
        self._publisher.give_up_at(0.0)
        await self._in_thread(self._publisher.close)
        self._thread.shutdown(wait=False)

    async def _work(self, connection: DedicatedConnection) -> None:
        while not self._stopping.is_set():
            try:
                moved = await self._cycle(connection)
            except LinkDown as down:
                await self._reconnect(down)
                continue
            if self._database_failures:
                _log.info("relay reads the outbox again")
                self._database_failures = 0
            if not moved:
                await self._wait_for_news(connection)

    async def _cycle(self, connection: DedicatedConnection) -> bool:
        """Fetch while the last batch flies, let it land, start the next, record the last."""
        self._keeper.news.clear()
        self._fetched_at_s = time.monotonic()
        fetched = await self._fetch(connection)
        outcome = await self._land()
        batch = self._ready(fetched, outcome)
        self._launch(batch)
        self._note_busy()
        await self._record(connection)
        self._note_busy()
        if self._lanes.to_release():
            self._keeper.beat_now.set()
        if outcome is not None and outcome.link is not None:
            raise outcome.link
        return bool(fetched)

    async def _fetch(self, connection: DedicatedConnection) -> list[Message]:
        lanes = self._lanes.usable()
        if not lanes:
            return []
        limit = self._batch_rows
        fetched = await fetch_batch(connection, lanes, rows_max=limit, in_flight=self.in_flight)
        self._batch_rows = next_batch_rows(limit, len(fetched), self._settings.batch_size)
        return fetched

    async def _land(self) -> Outcome | None:
        if self._flight is None:
            return None
        # Shielded: run() may be cancelled here, and settle() then waits for the same outcome.
        outcome = await asyncio.shield(self._flight.outcome)
        self._flight = None
        self._unrecorded.append(outcome)
        self._signal(Signal.BATCH_PUBLISHED)
        return outcome

    def _ready(self, fetched: list[Message], outcome: Outcome | None) -> list[Message]:
        """Of *fetched*, what may take off now: lanes may have gone, and keys failed, since it was read."""
        if outcome is not None and outcome.link is not None:
            return []
        fences = {(lane.lane, lane.epoch) for lane in self._lanes.usable()}
        waiting = (
            {message.key for message, _ in outcome.faulty if message.key is not None}
            if outcome
            else set[str]()
        )
        return [m for m in fetched if (m.lane, m.epoch) in fences and m.key not in waiting]

    def _launch(self, batch: list[Message]) -> None:
        if batch:
            landing = asyncio.get_running_loop().run_in_executor(self._thread, self._publisher.publish, batch)
            self._flight = _Flight(messages=batch, outcome=landing)
            self._signal(Signal.BATCH_TAKEN)

    def _note_busy(self) -> None:
        """A lane given back before its rows are marked would have them published again by its next owner."""
        lanes = {message.lane for message in self.in_flight}
        for outcome in self._unrecorded:
            lanes.update(message.lane for message in outcome.sent)
            lanes.update(message.lane for message, _ in outcome.faulty)
        self._lanes.busy = frozenset(lanes)

    async def _record(self, connection: DedicatedConnection) -> None:
        while self._unrecorded:
            outcome = self._unrecorded[0]
            if outcome.sent:
                await self._mark(connection, outcome.sent)
                outcome.sent = []  # should the next statement fail, this one is not repeated
            if outcome.faulty:
                await self._charge(connection, outcome)
            self._unrecorded.pop(0)

    async def _mark(self, connection: DedicatedConnection, sent: Sequence[Message]) -> None:
        fenced = len(sent) - await mark_sent(connection, sent, self._counters)
        if fenced:
            self._counters.fenced_total += fenced
            _log.warning(
                "relay could not mark rows: their lanes have another owner, who publishes them again",
                rows=fenced,
            )
        self._signal(Signal.BATCH_MARKED)

    async def _charge(self, connection: DedicatedConnection, outcome: Outcome) -> None:
        charges = [charge_for(message, fault) for message, fault in outcome.faulty]
        await charge_rows(connection, charges)
        for message, fault, step in charges:
            told = {"seq": message.seq, "error_code": fault.error_code, "reason": str(fault)}
            if isinstance(step, Retry):
                self._counters.retried_total += 1
                _log.warning("relay could not publish a row, trying again", after_s=step.after_s, **told)
            else:
                self._counters.failed_total += 1
                _log.error(
                    "relay gave a row up; its key waits for an operator",
                    attempts=message.attempts + 1,
                    **told,
                )
        self._signal(Signal.ROWS_CHARGED)

    async def _wait_for_news(self, connection: DedicatedConnection) -> None:
        due_s = await seconds_until_due(connection, fetched_s=time.monotonic() - self._fetched_at_s)
        await self._in_thread(self._publisher.serve)
        self._signal(Signal.IDLE)
        poll_s = self._settings.poll_interval
        await wait_at_most(self._keeper.news, poll_s if due_s is None else min(poll_s, due_s))

    async def _first_connect(self) -> None:
        try:
            await self._in_thread(self._publisher.connect)
        except LinkDown as down:
            await self._reconnect(down)

    async def _reconnect(self, down: LinkDown) -> None:
        """Wait until a broker answers again; the lanes stay this relay's, and no row is charged."""
        if self._stopping.is_set():
            return
        self._counters.link_outages_total += 1
        self.link_failures = 1
        _log.warning("relay has lost Kafka, trying again", error_code=down.error_code, reason=str(down))
        self._signal(Signal.LINK_DOWN)
        while not self._stopping.is_set():
            await wait_at_most(self._stopping, link_pause_s(self.link_failures))
            try:
                await self._in_thread(self._publisher.connect)
            except LinkDown:
                self.link_failures += 1
            else:
                self.link_failures = 0
                _log.info("relay has reached Kafka again")
                self._signal(Signal.LINK_UP)
                return

    async def _in_thread(self, work: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, work)
