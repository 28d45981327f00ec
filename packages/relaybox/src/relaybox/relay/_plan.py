"""Decide what the publish loop does next: actions and circuit breaker. No clock, no I/O.

The publish loop describes its state in a :class:`LoopState`, executes the action that :func:`plan_next`
returns, and starts again::

    ┌─► Refresh ─┬──────────► Fetch ─► Receive ─┬───────────► Publish ─┬─► Refresh
    │            └─► Split ─► Refresh           └─► Fetch ──► Publish  └─► Wait ─► Refresh
    │                                               (ahead, in a backlog)   (nothing has changed)
    └─ Reconnect, while no broker responds

When the relay has to stop, ``Stop`` follows the current action.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import assert_never

from relaybox.relay._errors import LinkDown, Retry, RowFault, link_pause_s, next_step
from relaybox.relay._messages import Message

__all__ = (
    "Action",
    "Breaker",
    "BreakerState",
    "Fetch",
    "FetchPhase",
    "LoopState",
    "Publish",
    "Receive",
    "Reconnect",
    "Refresh",
    "Split",
    "Stop",
    "Wait",
    "plan_fetch",
    "plan_next",
    "select_publishable",
)


class BreakerState(StrEnum):
    """State of the circuit breaker for the link to Kafka."""

    #: Brokers respond: the relay publishes all rows.
    CLOSED = "closed"
    #: No broker responds: the relay fetches no rows. It counts failed attempts only of the rows that were in
    #: flight when the link failed.
    OPEN = "open"
    #: A broker responds again: the relay publishes one row, the probe, before all others.
    HALF_OPEN = "half-open"


class FetchPhase(Enum):
    """State of the query for the rows to publish next."""

    #: No query has started.
    NONE = "none"
    #: The query is running.
    READING = "reading"
    #: The query has ended.
    READ = "read"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopState:
    """State of the publish loop on which the next action depends."""

    #: Whether the relay has to stop.
    stopping: bool
    #: State of the circuit breaker.
    breaker: BreakerState
    #: Whether the last ``Publish`` changed nothing, so that the loop waits for a notification or a timeout.
    idle: bool
    #: Whether ``Refresh`` was executed since the last ``Publish`` or ``Split``.
    refreshed: bool
    #: Whether more lanes are requested than exist.
    split_wanted: bool
    fetch: FetchPhase
    #: Number of the rows to publish next; 0 until they have been read.
    rows_read: int
    #: Whether a second query has started, which reads the rows after the ``rows_read`` rows.
    fetching_ahead: bool
    #: Whether rows of the current query (``fetch``) must be read again, or the previous query returned rows
    #: of which none could be published.
    rows_held_back: bool
    #: ``RELAY_BATCH_SIZE``: maximum number of rows of a query without a backlog.
    batch_size: int
    #: Maximum number of rows of the next query; higher than ``batch_size`` in a backlog.
    batch_rows: int
    #: Numbers of the owned lanes (slices of keys) whose takeover is complete; the relay publishes from these.
    ready_lanes: Sequence[int]
    #: Lanes whose next transaction should not start yet.
    paused_lanes: frozenset[int]
    #: Lanes with a batch in flight.
    in_flight_lanes: frozenset[int]
    #: Lanes with a late batch in flight: the other lanes have waited 1 s for the batch, and wait no longer.
    late_lanes: frozenset[int]
    #: Number of rows in late batches.
    late_rows: int
    #: Whether a batch of any lane may start only after the last batch has finished.
    one_batch_at_a_time: bool

    @property
    def backlog(self) -> bool:
        """Whether the next query requests more than ``batch_size`` rows, because the last one was full."""
        return self.batch_rows > self.batch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Action: leave the loop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnect:
    """Action: after a pause, try to reach a broker."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refresh:
    """Action: find out which lanes are ready, and make rows that waited for Kafka PENDING again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Action: split each owned lane in two when no row is in flight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetch:
    """Action: start to read the next rows."""

    #: Lanes to read; empty if no batch may start now.
    lanes: tuple[int, ...]
    #: Maximum number of rows.
    rows_max: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Receive:
    """Action: wait for the rows that are being read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publish:
    """Action: collect finished batches, then publish the rows that were read."""

    #: Whether to wait first until the batches in flight have finished, except late ones. In a backlog this is
    #: True, so that the batches of all lanes start together.
    wait_for_in_flight: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Action: wait for a notification, the next retry, or the next poll."""


Action = Stop | Reconnect | Refresh | Split | Fetch | Receive | Publish | Wait


def plan_next(state: LoopState) -> Action:
    """Return the next action in *state*."""
    if state.stopping:
        return Stop()
    if state.idle:
        return Wait()
    if state.breaker is BreakerState.OPEN:
        return Reconnect()
    if not state.refreshed:
        return Refresh()
    if state.split_wanted:
        return Split()
    match state.fetch:
        case FetchPhase.NONE:
            return plan_fetch(state)
        case FetchPhase.READING:
            return Receive()
        case FetchPhase.READ:
            return _plan_publish(state)
    assert_never(state.fetch)


def plan_fetch(state: LoopState) -> Fetch:
    """Return the lanes to read, and the maximum number of rows.

    * Without a backlog, a ready lane is read if it has no batch in flight and is not paused.
    * In a backlog, a ready lane is read unless it has a late batch (:attr:`LoopState.late_lanes`). The
      relay waits for the batches that are not late before it publishes the rows of this read.
    * With ``one_batch_at_a_time``, no lane is read while any lane has a batch in flight. In a backlog, only a
      late batch prevents the read.
    * While the circuit breaker is half-open, the relay reads only the probe: one row, and no row while a
      batch is in flight.
    """
    probing = state.breaker is BreakerState.HALF_OPEN
    backlog = state.backlog and not probing  # a read that began before the outage may still report a backlog
    occupied = state.late_lanes if backlog else state.in_flight_lanes
    excluded = occupied if backlog else occupied | state.paused_lanes
    lanes = tuple(lane for lane in state.ready_lanes if lane not in excluded)
    if occupied and (probing or state.one_batch_at_a_time):
        lanes = ()
    # Fewer rows while there are late batches, because their rows are in memory too.
    rows_max = 1 if probing else max(state.batch_size, state.batch_rows - state.late_rows)
    return Fetch(lanes=lanes, rows_max=rows_max)


def _plan_publish(state: LoopState) -> Action:
    pipelined = state.rows_read > 0 and (state.backlog or state.fetching_ahead)
    # No reading ahead while rows are held back, because the rows read ahead would have to be read again.
    if pipelined and not state.fetching_ahead and not state.rows_held_back:
        return plan_fetch(state)
    return Publish(wait_for_in_flight=pipelined)


def select_publishable(
    messages: Sequence[Message],
    *,
    fetched_fences: AbstractSet[tuple[int, int]],
    usable_fences: AbstractSet[tuple[int, int]],
    busy_lanes: Collection[int],
    blocked_keys: Collection[str],
) -> Sequence[Message]:
    """Return those of *messages*, in order, that may be published now.

    Args:
        messages: Rows as they were read.
        fetched_fences: Lane and epoch of each lane that was read.
        usable_fences: Lane and epoch of each lane whose lease is valid now.
        busy_lanes: Lanes with a batch in flight, or with an earlier row that was not published (G21).
        blocked_keys: Keys with a row whose failure is not recorded yet (G34).
    """
    if fetched_fences <= usable_fences and not busy_lanes and not blocked_keys:
        return messages
    return [
        each
        for each in messages
        if each.lane not in busy_lanes
        and (each.lane, each.epoch) in usable_fences
        and each.key not in blocked_keys
    ]


class Breaker:
    """Circuit breaker: opens when the link to Kafka fails, closes when the next row is published (G25).

    For each row that was in flight and is known to be unpublished, a failed attempt is counted at once. While
    no broker responds, further attempts are counted after 1, 2 and 4 s, as for a faulty row, but with the
    reason ``link``. When a broker responds, these rows become PENDING again. For all other rows, no attempt
    is counted.
    """

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        #: The last failure of the link; None while the breaker is closed.
        self.reason: LinkDown | None = None
        self._failures = 0
        #: Rows that were in flight, each with the time at which its next failed attempt counts.
        self._interrupted: list[tuple[float, Message]] = []

    def trip(self, reason: LinkDown, interrupted: Sequence[Message], now_s: float) -> bool:
        """Open the breaker; return True if it was closed before, False if it was open or half-open.

        Args:
            reason: The failure of the link.
            interrupted: Rows that were in flight and are known to be unpublished.
            now_s: Current time, by ``time.monotonic()``.
        """
        news = self.state is BreakerState.CLOSED
        self.state, self.reason = BreakerState.OPEN, reason
        self._failures += 1
        self._interrupted += [(now_s, message) for message in interrupted]
        return news

    def failed_again(self) -> None:
        """Count another failed attempt to reach a broker."""
        self._failures += 1

    def pause_s(self) -> float:
        """Return the seconds to wait before the next attempt to reach a broker."""
        return link_pause_s(max(1, self._failures))

    def note_response(self) -> None:
        """Change to half-open, because a broker responds: the relay publishes one row first, the probe."""
        self.state = BreakerState.HALF_OPEN
        self._interrupted.clear()

    def published(self) -> bool:
        """Close a half-open breaker, because a row was published; return whether it was half-open."""
        closed = self.state is BreakerState.HALF_OPEN
        if closed:
            self.state, self.reason, self._failures = BreakerState.CLOSED, None, 0
        return closed

    def due(self, now_s: float) -> list[tuple[Message, RowFault | LinkDown]]:
        """Return the interrupted rows whose next failed attempt counts now, each with the reason.

        Args:
            now_s: Current time, by ``time.monotonic()``.
        """
        if self.reason is None:
            return []
        due = [message for at_s, message in self._interrupted if now_s >= at_s]
        self._interrupted = [(at_s, message) for at_s, message in self._interrupted if now_s < at_s]
        for message in due:
            step = next_step(message.attempts + 1)
            if isinstance(step, Retry):
                again = message._replace(attempts=message.attempts + 1)
                self._interrupted.append((now_s + step.after_s, again))
        reason: RowFault | LinkDown = self.reason
        return [(message, reason) for message in due]
