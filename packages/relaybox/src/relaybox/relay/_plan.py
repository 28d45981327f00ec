"""Decides what the publish loop does next. Pure: no clock, no I/O.

The publish loop describes its state in a :class:`LoopState`, carries out the action that :func:`plan_next`
returns, and calls it again::

    ┌─► Refresh ─┬──────────► Fetch ─► Receive ─┬───────────► Publish ─┬─► Refresh
    │            └─► Split ─► Refresh           └─► Fetch ──► Publish  └─► Wait ─► Refresh
    │                                               (ahead, in a backlog)   (nothing has changed)
    └─ Reconnect, while no broker responds

Once the relay has to stop, ``Stop`` follows the current action.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from relaybox.relay._backoff import BreakerState
from relaybox.relay._messages import Message

__all__ = (
    "Action",
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


class FetchPhase(Enum):
    """Whether the rows to publish next are being read, or have been."""

    NONE = "none"
    #: A query is reading them.
    READING = "reading"
    READ = "read"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoopState:
    """The state on which the decision depends."""

    stopping: bool
    breaker: BreakerState
    #: The last ``Publish`` has changed nothing: there is nothing to do before a notification or a timeout.
    idle: bool
    #: Lanes and postponed rows were updated since the last ``Publish``.
    refreshed: bool
    #: PostgreSQL holds fewer lanes than are configured.
    split_wanted: bool
    fetch: FetchPhase
    #: Number of the rows to publish next; 0 until they have been read.
    rows_read: int
    #: A second query, which reads the rows after those, has started.
    fetching_ahead: bool
    #: Rows of this query must be read again, or none of the previous query could be published.
    rows_held_back: bool
    #: ``RELAY_BATCH_SIZE``, and how many rows the next query asks for: more in a backlog.
    batch_size: int
    batch_rows: int
    #: Owned lanes whose takeover is complete.
    ready_lanes: Sequence[int]
    #: Lanes whose last transaction has just ended.
    paused_lanes: frozenset[int]
    #: Lanes with a batch in flight; those with a late batch, for which other lanes do not wait; the number
    #: of rows in late batches.
    in_flight_lanes: frozenset[int]
    late_lanes: frozenset[int]
    late_rows: int
    #: Whether a batch of any lane may start only after the last batch has finished.
    one_batch_at_a_time: bool

    @property
    def backlog(self) -> bool:
        """Whether the last query was full: the next one asks for more rows than ``RELAY_BATCH_SIZE``."""
        return self.batch_rows > self.batch_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Stop:
    """Leave the loop, without fetching more rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reconnect:
    """Try to reach a broker, after a pause."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refresh:
    """Update which lanes are ready, and requeue the rows that waited for the link."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Split each owned lane in two once nothing is in flight."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fetch:
    """Start to read the next rows."""

    #: The lanes to read from; empty if no batch may start now.
    lanes: tuple[int, ...]
    rows_max: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Receive:
    """Wait for the rows that are being read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Publish:
    """Collect finished batches, then publish the rows that were read."""

    #: Wait for batches in flight first: in a backlog all lanes start together, after one query.
    wait_for_in_flight: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """Wait for a notification, the next retry, or the next poll."""


Action = Stop | Reconnect | Refresh | Split | Fetch | Receive | Publish | Wait


def plan_next(state: LoopState) -> Action:
    """Return what to do in *state*."""
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
    """Return which lanes to read from, and how many rows.

    Without a backlog, read from lanes that have nothing in flight and are not paused. In a backlog, read from
    all lanes except those with a late batch: other batches finish while the rows are read. While the breaker
    is half-open, read one row, the probe.
    """
    probing = state.breaker is BreakerState.HALF_OPEN
    backlog = state.backlog and not probing  # a read that began before the outage may still report a backlog
    occupied = state.late_lanes if backlog else state.in_flight_lanes
    excluded = occupied if backlog else occupied | state.paused_lanes
    lanes = tuple(lane for lane in state.ready_lanes if lane not in excluded)
    if occupied and (probing or state.one_batch_at_a_time):
        lanes = ()
    # Fewer rows while there are late batches, whose rows are in memory too.
    rows_max = 1 if probing else max(state.batch_size, state.batch_rows - state.late_rows)
    return Fetch(lanes=lanes, rows_max=rows_max)


def _plan_publish(state: LoopState) -> Action:
    pipelined = state.rows_read > 0 and (state.backlog or state.fetching_ahead)
    # Do not read ahead of rows that are held back: the rows read ahead would be stale each time.
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
        fetched_fences: Lane and epoch of each lane that was read from.
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
