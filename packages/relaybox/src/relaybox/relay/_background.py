"""Work on PostgreSQL beside the publish loop: record outcomes, remove old rows, measure the backlog."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from operator import not_
from typing import Final
from uuid import UUID

import structlog

from relaybox.db import Database, DatabaseError, DedicatedConnection
from relaybox.errors import RelayboxError
from relaybox.outbox import RetentionStep, retain
from relaybox.periodic import run_if_due
from relaybox.relay._batches import Batch, Outcome
from relaybox.relay._errors import HistoryChanged, LinkDown, Postpone, Retry, RowFault, link_pause_s
from relaybox.relay._messages import Message
from relaybox.relay._postgres import (
    Connections,
    LowWatermark,
    charge_for,
    charge_rows,
    mark_sent,
    measure_backlog,
    use_partial_indexes,
)
from relaybox.relay._statistics import Counters, RelaySignal
from relaybox.signals import OnSignal
from relaybox.telemetry import traceback_of

__all__ = (
    "Disorder",
    "Maintenance",
    "OrderWatch",
    "Recorder",
)

#: Bound of the keys that OrderWatch keeps; one batch may exceed the bound by its own keys.
_KEYS_MAX: Final = 10_000
#: Bound of the unpublished rows that OrderWatch keeps.
_HELD_ROWS_MAX: Final = 10_000
#: The publish loop waits while more rows than this (two full batches of a backlog) are not recorded.
_ROWS_MAX: Final = 10_000
#: Longest interval of calls of retain().
_RETENTION_PAUSE_S: Final = 60.0
#: Minimum number of calls within the retention time; a short retention time needs a shorter interval.
_STEPS_PER_SLOT: Final = 50
_MAINTENANCE_FAILED: Final = "relay maintenance failed, trying again"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Disorder:
    """Rows that were published after a row of their key with a higher ``seq``."""

    #: Rows that the relay had read when it published the later row: their order on the topic is wrong.
    violations: tuple[Message, ...] = ()
    #: Rows that the relay had not read when it published the later row: they probably committed late (G22).
    late: tuple[Message, ...] = ()


class OrderWatch:
    """Check the order of published rows by the last ``seq`` of each key, and by the rows that failed.

    A smaller ``seq`` after a larger one is not always an error, because rows get their ``seq`` before they
    commit, and the relay guarantees the order of commits. It is an error if the relay had already read the
    row with the smaller ``seq`` when it published the other row: both rows were in one batch, or the relay
    had tried to publish the row with the smaller ``seq`` before. Only rows with the same epoch of their lane
    are compared, because with at-least-once delivery the next owner of a lane may publish rows again.

    This check does not find errors between relays, nor committed rows that were never fetched;
    ``relaybox verify`` finds both.
    """

    def __init__(self) -> None:
        # Seq, lane and epoch by key. When _recent has over 5,000 keys, it replaces _older: 0.2 us per row.
        self._recent: dict[str, tuple[int, int, int]] = {}
        self._older: dict[str, tuple[int, int, int]] = {}
        self._unpublished: dict[int, None] = {}

    def published(self, sent: Sequence[Message]) -> Disorder | None:
        """Check the order of *sent*, the rows of a published batch; return the rows out of order, or None."""
        disordered: list[tuple[int, Message]] = []
        recent, older = self._recent, self._older
        for message in sent:
            key = message.key
            if key is None:
                continue  # rows without a key have no order
            last = recent.get(key) or older.get(key)
            if last is not None and message.seq < last[0] and message[1:3] == last[1:]:
                disordered.append((last[0], message))
            else:
                recent[key] = message[:3]
        if len(recent) > _KEYS_MAX // 2:
            self._older, self._recent = recent, {}
        found = self._classify(disordered, sent) if disordered else None
        if self._unpublished:
            for message in sent:
                self._unpublished.pop(message.seq, None)
        return found

    def not_published(self, tried: Iterable[Message]) -> None:
        """Remember the rows *tried*, which were not published and must precede later rows of their keys."""
        self._unpublished.update((message.seq, None) for message in tried)
        while len(self._unpublished) > _HELD_ROWS_MAX:
            del self._unpublished[next(iter(self._unpublished))]

    def _classify(self, disordered: Sequence[tuple[int, Message]], sent: Sequence[Message]) -> Disorder:
        together = {message.seq for message in sent}
        known = [m.seq in self._unpublished or last in together for last, m in disordered]
        rows = [message for _, message in disordered]
        return Disorder(violations=tuple(compress(rows, known)), late=tuple(compress(rows, map(not_, known))))


@dataclass(kw_only=True, slots=True)
class _PendingOutcome:
    """An outcome, without the envelopes of published rows: envelopes take most of the memory of a relay."""

    #: The batch without its messages. None for rows that failed outside of a batch: a check or the isolation
    #: of a rejected batch found them faulty, or their failed attempts are counted during an outage.
    batch: Batch | None
    #: ``seqs`` and ``row_ids`` of the published rows, in the same order; ``fences``: number and epoch of each
    #: lane of these rows.
    seqs: Sequence[int]
    row_ids: Sequence[UUID]
    fences: set[tuple[int, int]]
    faulty: Sequence[tuple[Message, RowFault | LinkDown]]

    @classmethod
    def of(cls, batch: Batch | None, outcome: Outcome) -> "_PendingOutcome":
        return cls(
            batch=None if batch is None else replace(batch, messages=()),
            seqs=[message.seq for message in outcome.sent],
            row_ids=[message.row_id for message in outcome.sent],
            fences={(message.lane, message.epoch) for message in outcome.sent},
            faulty=outcome.faulty,
        )


class Recorder:
    """Record outcomes of rows in PostgreSQL; each outcome is kept until its statement has succeeded.

    The recorder has its own connection, because marking takes as long as fetching: on one connection each
    would wait for the other.

    Invariant: all rows of unrecorded outcomes are PENDING in the table. So until the outcomes are recorded,
    the relay must not publish these rows, nor later rows of a faulty row's key.
    """

    def __init__(
        self,
        connections: Connections,
        counters: Counters,
        on_signal: OnSignal[RelaySignal],
        *,
        on_settled: Callable[[Batch], None],
        on_change: Callable[[], None],
    ) -> None:
        """Create the recorder without connecting.

        Args:
            connections: Opens the connection.
            counters: Counters to increment.
            on_signal: Called with each signal.
            on_settled: Called with each batch whose published rows are marked.
            on_change: Called after outcomes were recorded.
        """
        self._connections = connections
        self._counters = counters
        self._signal = on_signal
        self._on_settled = on_settled
        self._on_change = on_change
        self._held: list[_PendingOutcome] = []
        self._order = OrderWatch()
        self._not_empty = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()

    def add(self, batch: Batch | None, outcome: Outcome) -> None:
        """Count *outcome* and queue it for :meth:`run`; *batch* is None if rows failed outside of a batch."""
        self._count(batch, outcome)
        self._held.append(_PendingOutcome.of(batch, outcome))
        self._empty.clear()
        self._not_empty.set()

    def seqs(self) -> list[int]:
        """Return ``seq`` of each row with an unrecorded outcome; a fetch must exclude these rows."""
        sent = [seq for held in self._held for seq in held.seqs]
        return [*sent, *(message.seq for held in self._held for message, _ in held.faulty)]

    def blocked_keys(self) -> set[str]:
        """Return the keys of faulty rows whose failure is not recorded yet."""
        return {m.key for held in self._held for m, _ in held.faulty if m.key is not None}

    def lanes(self) -> set[int]:
        """Return the numbers of lanes with a queued outcome, which PostgreSQL may not have recorded yet."""
        lanes = {lane for held in self._held if held.batch is not None for lane in held.batch.lanes}
        return lanes | self.charging_lanes()

    def charging_lanes(self) -> set[int]:
        """Return the numbers of the lanes of faulty rows whose failure is not recorded yet."""
        return {message.lane for held in self._held for message, _ in held.faulty}

    async def wait_for_room(self) -> None:
        """If more than 10,000 rows are not recorded, wait until all are."""
        if len(self.seqs()) > _ROWS_MAX:
            await self._empty.wait()

    async def wait_until_empty(self) -> None:
        """Wait until all queued outcomes are recorded."""
        await self._empty.wait()

    async def run(self) -> None:
        """Record pending outcomes until cancelled; retry while PostgreSQL is unavailable."""
        failures = 0
        while True:
            try:
                async with self._connections.connected() as connection:
                    await use_partial_indexes(connection)
                    while True:
                        await self._not_empty.wait()
                        await self._record(connection)
                        failures = 0
            except DatabaseError as error:
                failures += 1
                if failures == 1:
                    _log.warning(
                        "relay cannot record outcomes of rows in PostgreSQL, trying again",
                        error_code=error.error_code,
                        reason=str(error),
                    )
                await asyncio.sleep(link_pause_s(failures))

    def _count(self, batch: Batch | None, outcome: Outcome) -> None:
        """Count the published rows of *outcome* and check their order; note the other rows for that check."""
        if outcome.sent:
            self._counters.count_batch(rows=len(outcome.sent))
        disorder = self._order.published(outcome.sent)
        if disorder is not None:
            self._counters.late_total += len(disorder.late)
            self._counters.order_violations_total += len(disorder.violations)
            for m in disorder.violations:
                _log.error(
                    "relay published a row after a later row of its key; run `relaybox verify`",
                    seq=m.seq,
                    lane=m.lane,
                )
        tried = [message for message, _ in outcome.faulty] if batch is None else batch.messages
        if len(tried) > len(outcome.sent):
            sent = {message.seq for message in outcome.sent}
            self._order.not_published(message for message in tried if message.seq not in sent)

    async def _record(self, connection: DedicatedConnection) -> None:
        """Record all queued outcomes, with one statement for published rows and one for failed rows."""
        held = list(self._held)
        if any(each.seqs for each in held):
            await self._mark(connection, held)
            for each in held:
                each.seqs = ()  # if the next statement fails, these rows are not marked again
                if each.batch is not None:
                    self._on_settled(each.batch)
        faulty = [fault for each in held for fault in each.faulty]
        if faulty:
            await self._charge(connection, faulty)
        del self._held[: len(held)]
        if not self._held:
            self._not_empty.clear()
            self._empty.set()
        self._on_change()

    async def _mark(self, connection: DedicatedConnection, held: Sequence[_PendingOutcome]) -> None:
        seqs = [seq for each in held for seq in each.seqs]
        fences = {fence for each in held for fence in each.fences}
        row_ids = [row_id for each in held if each.seqs for row_id in each.row_ids]
        fenced = len(seqs) - await mark_sent(connection, seqs, row_ids, fences, self._counters)
        if fenced:
            self._counters.fenced_total += fenced
            _log.warning(
                "rows not marked SENT, no action needed: an earlier attempt marked them, or their lanes were "
                "taken over and the owner marks or publishes them",
                rows=fenced,
            )
        self._signal(RelaySignal.BATCH_MARKED)

    async def _charge(
        self, connection: DedicatedConnection, faulty: Sequence[tuple[Message, RowFault | LinkDown]]
    ) -> None:
        charges = [charge_for(message, fault) for message, fault in faulty]
        await charge_rows(connection, charges)
        for message, fault, step in charges:
            if isinstance(step, Postpone):
                continue  # PartitionWatch logs the partition once, instead of each row
            fields = {"seq": message.seq, "error_code": fault.error_code, "reason": str(fault)}
            if isinstance(step, Retry):
                self._counters.retried_total += 1
                _log.warning("row could not be published, trying again", after_s=step.after_s, **fields)
            else:
                self._counters.failed_total += 1
                _log.error(
                    "row marked FAILED; later rows of its key are blocked",
                    attempts=message.attempts + 1,
                    **fields,
                )
        self._signal(RelaySignal.ROWS_CHARGED)


class Maintenance:
    """Remove old SENT rows, and measure the backlog.

    Invariant: an error of these tasks neither ends the relay nor delays a heartbeat. Each task has its own
    connection and retries after an error; ``maintenance_failures_total`` counts errors. Exception: a changed
    history of PostgreSQL ends the session of the relay.
    """

    def __init__(
        self,
        database: Database,
        connections: Connections,
        counters: Counters,
        low_watermark: LowWatermark,
        *,
        keep_h: float,
        measure_s: float,
    ) -> None:
        """Create the tasks without starting them.

        Args:
            database: Provides the connection for retention.
            connections: Opens the connection for measurements.
            counters: Gets the backlog, and counts errors.
            low_watermark: Has the lowest ``seq`` to measure.
            keep_h: Retention time of SENT rows, in hours.
            measure_s: Interval of measurements, in seconds.
        """
        self._database = database
        self._connections = connections
        self._counters = counters
        self._low_watermark = low_watermark
        self._keep_h = keep_h
        self._retention_s = min(_RETENTION_PAUSE_S, keep_h * 3_600 / _STEPS_PER_SLOT)
        self._retention_in_s = self._retention_s
        self._measure_s = measure_s

    async def remove_old_rows(self) -> None:
        """Remove old SENT rows at least every 60 s until cancelled; only one relay executes each run."""
        while True:
            await asyncio.sleep(self._retention_in_s)
            await self._attempt("retention", self._retain_if_due)

    async def measure(self) -> None:
        """Measure the backlog every ``measure_s`` seconds until cancelled."""
        while True:
            await self._attempt("backlog measurement", self._measure_while_connected)
            await asyncio.sleep(self._measure_s)

    async def _retain_if_due(self) -> None:
        self._retention_in_s = self._retention_s
        self._retention_in_s = await run_if_due(
            self._database, "relaybox.outbox-retention", self._retention_s, self._retain
        )

    async def _retain(self) -> None:
        async with self._database.connection() as connection:
            steps = await retain(connection, keep_h=self._keep_h)
        if RetentionStep.EMPTIED in steps:
            _log.info("relay removed old SENT rows", steps=steps)
        elif steps:
            _log.debug("relay prepared the removal of old rows", steps=steps)

    async def _measure_while_connected(self) -> None:
        async with self._connections.connected() as connection:
            await use_partial_indexes(connection)
            while True:
                await measure_backlog(connection, self._counters, self._low_watermark.seq)
                await asyncio.sleep(self._measure_s)

    async def _attempt(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except HistoryChanged:
            raise  # the relay starts a new session
        except RelayboxError as error:
            self._counters.maintenance_failures_total += 1
            _log.warning(_MAINTENANCE_FAILED, task=task, error_code=error.error_code, reason=str(error))
        except Exception as error:  # noqa: BLE001 - publishing does not depend on this work
            self._counters.maintenance_failures_total += 1
            _log.error(_MAINTENANCE_FAILED, task=task, traceback=traceback_of(error))
