"""When the relay retries rows, the link to Kafka, lanes and transactions. Pure, except for one wait."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from relaybox.relay._errors import LinkDown, RowFault
from relaybox.relay._messages import Message

__all__ = (
    "Breaker",
    "BreakerState",
    "GiveUp",
    "LaneFailures",
    "Postpone",
    "Retry",
    "TransactionPause",
    "link_pause_s",
    "next_batch_rows",
    "next_step",
    "wait_at_most",
)

#: Contract, section 4: a row is retried after 1 s, 2 s, 4 s, and FAILED after the third retry.
_RETRIES_S: Final = (1.0, 2.0, 4.0)
_LINK_PAUSE_S: Final = 0.1
_LINK_PAUSE_S_MAX: Final = 2.0
#: In a backlog, batches grow up to this factor of RELAY_BATCH_SIZE, and up to this many rows: one round trip
#: to both servers for 5,000 rows is faster than one for every 100. More rows need more than 150 MB.
_BACKLOG_FACTOR: Final = 50
_BACKLOG_ROWS_MAX: Final = 5_000
#: A lane that has failed for this long is reported as stuck; a takeover after a kill lasts up to 10 s.
_STUCK_S: Final = 10.0
#: An open lane that has not failed for this long is not stuck, even if nothing was published.
_QUIET_S: Final = 15.0
_FEW_ROWS: Final = 8
#: Time from the start of a small transaction to the start of the next, so that the next has more rows. A
#: transaction costs the brokers the same whatever its size: at 600 events a second, one transaction per
#: event overloads the brokers.
_START_TO_START_S: Final = 0.025
#: Time from the end of a transaction to the start of the next. The coordinator confirms a commit before it
#: has written the transaction's markers, and until then rejects the next transaction
#: (CONCURRENT_TRANSACTIONS). librdkafka repeats the request every 20 ms, which keeps the brokers busy.
_END_TO_START_S: Final = 0.008


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Try the row again after *after_s* seconds; later rows of its key wait until then."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Mark the row FAILED; its key is blocked until an operator decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postpone:
    """Try the row again after *after_s* seconds, without charging an attempt to it."""

    after_s: float


def next_step(attempts: int) -> Retry | GiveUp:
    """Return what follows failure number *attempts* of a row that is at fault."""
    assert attempts >= 1
    return Retry(after_s=_RETRIES_S[attempts - 1]) if attempts <= len(_RETRIES_S) else GiveUp()


def link_pause_s(failures: int) -> float:
    """Return the seconds to wait after *failures* consecutive failures of a server; doubles up to 2 s."""
    assert failures >= 1
    return min(_LINK_PAUSE_S * 2 ** min(failures - 1, 10), _LINK_PAUSE_S_MAX)


def next_batch_rows(limit: int, fetched: int, batch_size: int) -> int:
    """Return how many rows to fetch next: twice as many if the last query was full, else *batch_size*."""
    if fetched < limit:
        return batch_size
    return max(batch_size, min(2 * limit, _BACKLOG_FACTOR * batch_size, _BACKLOG_ROWS_MAX))


class BreakerState(StrEnum):
    """State of the circuit breaker; the names are those of the pattern."""

    CLOSED = "closed"
    #: No broker responds: the relay fetches nothing, and charges only the rows in flight.
    OPEN = "open"
    #: A broker responds again: the relay publishes one row, the probe, before all others.
    HALF_OPEN = "half-open"


class Breaker:
    """Opens when the link fails, and closes with the first row that is published afterwards (G25).

    Rows that were in flight are charged after 1 s, 2 s and 4 s like faulty rows, but with the reason
    ``link``, and are requeued when a broker responds. No other row is charged.
    """

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        #: The failure that opened the breaker; None while it is closed.
        self.reason: LinkDown | None = None
        self._failures = 0
        #: Interrupted rows, each with the time of its next charge.
        self._interrupted: list[tuple[float, Message]] = []

    def trip(self, reason: LinkDown, interrupted: Sequence[Message], now_s: float) -> bool:
        """Open, with the rows *interrupted*; return whether the breaker was closed."""
        news = self.state is BreakerState.CLOSED
        self.state, self.reason = BreakerState.OPEN, reason
        self._failures += 1
        self._interrupted += [(now_s, message) for message in interrupted]
        return news

    def failed_again(self) -> None:
        """Note another attempt without a response from a broker."""
        self._failures += 1

    def pause_s(self) -> float:
        """Return the seconds to wait before the next attempt to reach a broker."""
        return link_pause_s(max(1, self._failures))

    def answered(self) -> None:
        """Note that a broker responds: the next row is the probe."""
        self.state = BreakerState.HALF_OPEN
        self._interrupted.clear()

    def published(self) -> bool:
        """Note that a row was published; return whether that closed the breaker."""
        closed = self.state is BreakerState.HALF_OPEN
        if closed:
            self.state, self.reason, self._failures = BreakerState.CLOSED, None, 0
        return closed

    def due(self, now_s: float) -> list[tuple[Message, RowFault | LinkDown]]:
        """Return the interrupted rows whose next charge is due, each with the reason."""
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


@dataclass(kw_only=True, slots=True)
class _LaneFailure:
    since_s: float
    last_s: float
    reason: str
    failures: int = 0
    pause_until_s: float = 0.0

    def failed_again_lately(self, now_s: float) -> bool:
        return self.last_s - self.since_s >= _STUCK_S and now_s - self.last_s < _QUIET_S


class LaneFailures:
    """Failures that keep lanes from publishing. The pauses between the attempts of a lane grow."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """*clock* returns seconds."""
        self._clock = clock
        self._lanes: dict[int, _LaneFailure] = {}

    def record(self, lane: int, reason: str, *, at_least_s: float = 0.0) -> float:
        """Note that *lane* failed because of *reason*; return the seconds until it is tried again."""
        now_s = self._clock()
        trouble = self._lanes.setdefault(lane, _LaneFailure(since_s=now_s, last_s=now_s, reason=reason))
        trouble.failures += 1
        trouble.last_s, trouble.reason = now_s, reason
        pause_s = max(link_pause_s(trouble.failures), at_least_s)
        trouble.pause_until_s = now_s + pause_s
        return pause_s

    def clear(self, lane: int) -> None:
        """Note that *lane* has published a batch."""
        self._lanes.pop(lane, None)

    def forget_others(self, lanes: Collection[int]) -> None:
        """Forget all lanes except *lanes*: other relays own the others."""
        for lane in self._lanes.keys() - set(lanes):
            del self._lanes[lane]

    def may_retry(self, lane: int) -> bool:
        """Return whether the pause of *lane* is over."""
        trouble = self._lanes.get(lane)
        return trouble is None or self._clock() >= trouble.pause_until_s

    def stuck(self, open_lanes: Collection[int]) -> dict[int, str]:
        """Return the last failure of each lane that has failed for 10 s, by lane."""
        now_s = self._clock()
        return {
            lane: trouble.reason
            for lane, trouble in sorted(self._lanes.items())
            if now_s - trouble.since_s >= _STUCK_S
            and (lane not in open_lanes or trouble.failed_again_lately(now_s))
        }


@dataclass(kw_only=True, slots=True)
class TransactionPause:
    """Determines when the next transaction of a lane may start. The relay ignores it in a backlog."""

    #: Earliest start, by ``time.monotonic()``.
    until_s: float = 0.0

    def note_start(self, now_s: float, *, rows: int) -> None:
        """Note that a transaction of *rows* rows starts."""
        if rows <= _FEW_ROWS:
            self.until_s = now_s + _START_TO_START_S

    def note_end(self, now_s: float) -> None:
        """Note that the transaction has ended."""
        self.until_s = max(self.until_s, now_s + _END_TO_START_S)

    def remaining_s(self, now_s: float) -> float:
        """Return the seconds until the next transaction may start, 0 if it may start now."""
        return max(0.0, self.until_s - now_s)


async def wait_at_most(event: asyncio.Event, seconds: float) -> None:
    """Wait for *event*, or until *seconds* have passed."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return
