"""The circuit breaker between the relay and Kafka. Pure: the caller brings the time."""

from collections.abc import Sequence
from enum import StrEnum

from relaybox.relay._backoff import Retry, link_pause_s, next_step
from relaybox.relay._errors import LinkDown, RowFault
from relaybox.relay._messages import Message

__all__ = ("Breaker", "BreakerState")


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
