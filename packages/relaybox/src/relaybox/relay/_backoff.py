"""When the relay tries again: rows, the link to Kafka, lanes, transactions. No I/O."""

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
#: A backlog is taken in batches up to this many times RELAY_BATCH_SIZE, and up to this many rows: round
#: trips to both servers for every 100 rows drain slower than those for every 5,000. With more the relay
#: would take more than 150 MB.
_BACKLOG_FACTOR: Final = 50
_BACKLOG_ROWS_MAX: Final = 5_000
#: A lane counts as stuck when it has been in trouble for so long; a takeover after a kill takes up to 10 s.
_STUCK_S: Final = 10.0
#: A lane that is open and has not failed for so long is no longer in trouble, even if nothing was published.
_QUIET_S: Final = 15.0
_FEW_ROWS: Final = 8
#: Between the starts of two transactions of which the first has few rows, so that the second gets more. A
#: transaction costs the brokers the same whatever is in it: at 600 events a second, one for each event
#: keeps the brokers too busy to be quick.
_START_TO_START_S: Final = 0.025
#: Between the end of a transaction and the start of the next. The coordinator answers a commit before it has
#: written the transaction's markers, and rejects the next transaction until it has (CONCURRENT_TRANSACTIONS);
#: librdkafka repeats the request after a fixed 20 ms, and again, while the brokers are busy with rejections.
_END_TO_START_S: Final = 0.008


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Try the row again after *after_s* seconds; its key waits until then."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Mark the row FAILED; its key waits for an operator."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Postpone:
    """Try the row again after *after_s* seconds and charge no attempt; its key waits until then."""

    after_s: float


def next_step(attempts: int) -> Retry | GiveUp:
    """What follows after *attempts* failures through the row's own fault (1 for the first)."""
    assert attempts >= 1
    return Retry(after_s=_RETRIES_S[attempts - 1]) if attempts <= len(_RETRIES_S) else GiveUp()


def link_pause_s(failures: int) -> float:
    """Seconds to wait after *failures* failures in a row to reach a server; doubles up to 2 s."""
    assert failures >= 1
    return min(_LINK_PAUSE_S * 2 ** min(failures - 1, 10), _LINK_PAUSE_S_MAX)


def next_batch_rows(limit: int, fetched: int, batch_size: int) -> int:
    """How many rows to ask for next: twice as many while batches come back full, *batch_size* else."""
    if fetched < limit:
        return batch_size
    return max(batch_size, min(2 * limit, _BACKLOG_FACTOR * batch_size, _BACKLOG_ROWS_MAX))


class BreakerState(StrEnum):
    """Contract, section 4; the state's names are the pattern's."""

    CLOSED = "closed"
    #: No broker answers: nothing is fetched, and no row but those caught in flight is charged.
    OPEN = "open"
    #: A broker answers again; one real row is tried before anything else.
    HALF_OPEN = "half-open"


class Breaker:
    """Opens with the link's failure, and closes with the first row that is published afterwards (G25).

    Rows that the failure caught in flight fail after 1 s, 2 s and 4 s like faulty ones, though with reason
    ``link``; when a broker answers they are taken up again. No other row is charged.
    """

    def __init__(self) -> None:
        self.state = BreakerState.CLOSED
        #: What opened it.
        self.reason: LinkDown | None = None
        self._failures = 0
        #: When each of them fails the next time, and what it is.
        self._interrupted: list[tuple[float, Message]] = []

    def trip(self, reason: LinkDown, interrupted: Sequence[Message], now_s: float) -> bool:
        """The link failed with *interrupted* in flight; whether this is news."""
        news = self.state is BreakerState.CLOSED
        self.state, self.reason = BreakerState.OPEN, reason
        self._failures += 1
        self._interrupted += [(now_s, message) for message in interrupted]
        return news

    def failed_again(self) -> None:
        """Still no broker answers."""
        self._failures += 1

    def pause_s(self) -> float:
        """How long to wait before a broker is asked again."""
        return link_pause_s(max(1, self._failures))

    def answered(self) -> None:
        """A broker answers: the next row is the probe."""
        self.state = BreakerState.HALF_OPEN
        self._interrupted.clear()

    def published(self) -> bool:
        """A row was published; whether that closed the breaker."""
        closed = self.state is BreakerState.HALF_OPEN
        if closed:
            self.state, self.reason, self._failures = BreakerState.CLOSED, None, 0
        return closed

    def due(self, now_s: float) -> list[tuple[Message, RowFault | LinkDown]]:
        """The rows that fail once more now."""
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
    """What keeps each lane of a relay from publishing; a lane is tried again after pauses that grow."""

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
        """Forget the lanes that are none of *lanes*: other relays have them."""
        for lane in self._lanes.keys() - set(lanes):
            del self._lanes[lane]

    def may_retry(self, lane: int) -> bool:
        """Return whether the pause of *lane* is over."""
        trouble = self._lanes.get(lane)
        return trouble is None or self._clock() >= trouble.pause_until_s

    def stuck(self, open_lanes: Collection[int]) -> dict[int, str]:
        """Return the last failure of each lane that has failed for 10 s."""
        now_s = self._clock()
        return {
            lane: trouble.reason
            for lane, trouble in sorted(self._lanes.items())
            if now_s - trouble.since_s >= _STUCK_S
            and (lane not in open_lanes or trouble.failed_again_lately(now_s))
        }


@dataclass(kw_only=True, slots=True)
class TransactionPause:
    """When the next transaction of one lane may start; the relay ignores it in a backlog."""

    #: By ``time.monotonic()``.
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
