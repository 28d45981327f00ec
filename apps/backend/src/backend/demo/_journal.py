"""What the demo has heard so far, from Kafka and from the event stream."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from relaybox_types.envelope import EventEnvelope

from backend.demo._timeline import StepMissed

__all__ = ("Journal", "Published", "place_of")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """One event as it stands on the topic."""

    event: EventEnvelope
    topic: str
    partition: int
    offset: int


def place_of(one: Published) -> str:
    """Where an event stands."""
    return f"topic {one.topic}, partition {one.partition}, offset {one.offset}"


@dataclass(eq=False, slots=True)
class Journal:
    """Everything heard about one session or node; listeners write to it and wake who waits."""

    #: By version, the first appearance only.
    published: dict[int, Published] = field(default_factory=dict[int, Published])
    #: Data of the stream's events by version.
    told: dict[int, Mapping[str, Any]] = field(default_factory=dict[int, Mapping[str, Any]])
    #: Percent, in the order of the stream.
    progress: list[float] = field(default_factory=list[float])
    #: What must not be: a gap, a duplicate, a wrong order.
    faults: list[str] = field(default_factory=list[str])
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def publish(self, one: Published) -> None:
        """A message of it came from Kafka."""
        if one.event.version in self.published:
            return  # at-least-once: the same event once more
        if one.event.version != len(self.published) + 1:
            self.faults.append(f"Kafka gave version {one.event.version} after {len(self.published)}")
        self.published[one.event.version] = one
        self._wake()

    def tell(self, version: int, data: Mapping[str, Any]) -> None:
        """An event came on the stream."""
        if version != len(self.told) + 1:
            self.faults.append(f"the event stream gave version {version} after {len(self.told)}")
        self.told[version] = data
        self._wake()

    def advance(self, percent: float) -> None:
        """A task's progress came on the stream."""
        self.progress.append(percent)
        self._wake()

    async def until(self, what: str, look: Callable[[], T | None], limit_s: float) -> T:
        """Return what *look* finds as soon as it finds something.

        Raises:
            StepMissed: nothing in *limit_s* seconds; *what* names the step.
        """
        try:
            async with asyncio.timeout(limit_s):
                while (found := look()) is None:
                    await self._news.wait()
                return found
        except TimeoutError:
            raise StepMissed(f"{what}: not seen within {limit_s:g} s") from None

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
