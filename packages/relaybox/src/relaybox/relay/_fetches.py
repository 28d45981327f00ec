"""Rows that are being read, and what keeps them from taking off since their reading began."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from relaybox.relay._delivery import Batch
from relaybox.relay._lanes import Lane
from relaybox.relay._messages import Message

__all__ = ("Fetch", "Fetches")


@dataclass(kw_only=True, slots=True)
class Fetch:
    """Rows that are being read."""

    reading: asyncio.Task[list[Message]]
    #: The lanes it asks for, each with its epoch.
    fences: frozenset[tuple[int, int]]
    #: Keys that waited for a faulty row then: its charge may be newer than what is read.
    waiting: set[str]
    #: Lanes in which rows were known then that have not been published: those come first (G21).
    stale_lanes: set[int] = field(default_factory=set[int])


class Fetches:
    """What is being read: one fetch, and in a backlog a second one that is ahead of the first's take-off.

    Invariant: rows take off only if all that were known of their lane when their reading began have
    been published, or are not to be. Whoever finds one that is neither bars its lane.
    """

    def __init__(self) -> None:
        self._begun: list[Fetch] = []

    def __bool__(self) -> bool:
        return bool(self._begun)

    def start(
        self, reading: Coroutine[Any, Any, list[Message]], lanes: Iterable[Lane], waiting: set[str]
    ) -> None:
        """Read; the last one must have ended, for all go over one connection."""
        fences = frozenset((lane.lane, lane.epoch) for lane in lanes)
        self._begun.append(Fetch(reading=asyncio.create_task(reading), fences=fences, waiting=waiting))

    def first(self) -> Fetch:
        """The one whose rows take off next; it stays the first until :meth:`done`."""
        return self._begun[0]

    def remove_first(self) -> None:
        """The first one's rows take off now, or never."""
        del self._begun[0]

    def invalidate(self, lanes: Iterable[int]) -> None:
        """Something of *lanes* has not been published."""
        stale = set(lanes)
        for fetch in self._begun:
            fetch.stale_lanes |= stale

    def invalidate_all(self) -> None:
        """Whatever is being read is to be read anew."""
        for fetch in self._begun:
            fetch.stale_lanes.update(lane for lane, _ in fetch.fences)

    def invalidate_not_started(self, fetched: Sequence[Message], started: Sequence[Batch]) -> None:
        """Of *fetched* only *started* took off."""
        if self._begun and sum(len(batch.messages) for batch in started) < len(fetched):
            flying = {message.seq for batch in started for message in batch.messages}
            self.invalidate(message.lane for message in fetched if message.seq not in flying)

    async def cancel(self) -> None:
        """Read no further."""
        reading = [fetch.reading for fetch in self._begun]
        self._begun.clear()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
