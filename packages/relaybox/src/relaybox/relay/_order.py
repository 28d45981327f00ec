"""A second look at the order of what was published: the watch that must never have anything to tell (G21)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress
from operator import not_
from typing import Final

from relaybox.relay._messages import Message

__all__ = ("Disorder", "OrderWatch")

#: Half as many keys fill a generation; a batch may add its own on top.
_KEYS_MAX: Final = 10_000
_HELD_ROWS_MAX: Final = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Disorder:
    """Rows that were published after a later one of their key."""

    #: Known to the relay before: the topic has them in the wrong order.
    violations: tuple[Message, ...] = ()
    #: Not known before: as far as this relay can tell, their transaction committed late (G22).
    late: tuple[Message, ...] = ()


class OrderWatch:
    """Remembers, per key, the last row that was published, and which rows were tried in vain.

    A smaller ``seq`` after a larger one is not wrong by itself: numbers are drawn before the commit,
    and what is promised is the order of commits. It is wrong if the relay knew the row when it
    published the larger one: both were in one batch, or the row had been tried before. Nor is a
    duplicate wrong: at least once, a lane's next owner may repeat what was published, so rows are
    compared within one epoch of their lane only.

    It does not see what other relays published, nor a row that was there and never fetched;
    ``relaybox verify`` sees both.
    """

    def __init__(self) -> None:
        # Seq, lane and epoch. Two generations instead of a list by last use: bounded, and 0.2 us a row.
        self._recent: dict[str, tuple[int, int, int]] = {}
        self._older: dict[str, tuple[int, int, int]] = {}
        self._unpublished: dict[int, None] = {}

    def published(self, sent: Sequence[Message]) -> Disorder | None:
        """Kafka has *sent*, rows of one batch in this order; None as long as all is well."""
        disordered: list[tuple[int, Message]] = []
        recent, older = self._recent, self._older
        for message in sent:
            key = message.key
            if key is None:
                continue  # waits for nobody
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
        """Kafka does not have *tried*, as far as is known: nothing later of their keys may precede them."""
        self._unpublished.update((message.seq, None) for message in tried)
        while len(self._unpublished) > _HELD_ROWS_MAX:
            del self._unpublished[next(iter(self._unpublished))]

    def _classify(self, disordered: Sequence[tuple[int, Message]], sent: Sequence[Message]) -> Disorder:
        together = {message.seq for message in sent}
        known = [m.seq in self._unpublished or last in together for last, m in disordered]
        rows = [message for _, message in disordered]
        return Disorder(violations=tuple(compress(rows, known)), late=tuple(compress(rows, map(not_, known))))
