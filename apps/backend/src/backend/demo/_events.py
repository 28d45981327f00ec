"""The events that the demo has received so far."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import UUID

from relaybox_types.envelope import EventEnvelope

from backend.demo._timeline import StepMissed, require

__all__ = ("EventLog", "Published")

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """An event that was consumed from Kafka, with its topic, partition and offset."""

    event: EventEnvelope
    topic: str
    partition: int
    offset: int

    @property
    def place(self) -> str:
        """Return topic, partition and offset as text."""
        return f"topic {self.topic}, partition {self.partition}, offset {self.offset}"


@dataclass(eq=False, kw_only=True, slots=True)
class EventLog:
    """The events of one session or node that the demo received from Kafka and from its event stream.

    The log records a fault if an event does not have the version after that of the previous event, or if an
    event from Kafka has another correlation id. After a fault all waits raise StepMissed.
    """

    #: Name of the session or node in error messages.
    name: str
    #: The correlation id that all events must have.
    correlation_id: UUID
    #: Seconds that :meth:`wait_for` waits at most.
    limit_s: float
    #: The events from Kafka by version, without repeated deliveries.
    published: dict[int, Published] = field(default_factory=dict[int, Published])
    #: The data of the events from the event stream, by version.
    streamed: dict[int, Mapping[str, Any]] = field(default_factory=dict[int, Mapping[str, Any]])
    #: The progress of tasks in percent, in the order in which the event stream sent it.
    progress: list[float] = field(default_factory=list[float])
    #: One error message for each fault.
    faults: list[str] = field(default_factory=list[str])
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def add_published(self, published: Published) -> None:
        """Add an event from Kafka, unless it was delivered before."""
        event = published.event
        if event.version in self.published:
            return
        if event.version != len(self.published) + 1:
            self.faults.append(f"Kafka returned version {event.version} after version {len(self.published)}")
        if event.correlation_id != self.correlation_id:
            self.faults.append(
                f"Kafka returned an event with the correlation id {event.correlation_id}, "
                f"not {self.correlation_id}"
            )
        self.published[event.version] = published
        self._notify()

    def add_streamed(self, version: int, data: Mapping[str, Any]) -> None:
        """Add an event from the stream."""
        if version != len(self.streamed) + 1:
            self.faults.append(f"the event stream sent version {version} after version {len(self.streamed)}")
        self.streamed[version] = data
        self._notify()

    def add_progress(self, percent: float) -> None:
        """Add the progress of a task from the stream."""
        self.progress.append(percent)
        self._notify()

    async def wait_for(self, what: str, find: Callable[[], T | None]) -> T:
        """Call *find* after each new event, and return its first result that is not None.

        Raises:
            StepMissed: :attr:`faults` is not empty, or *find* returned None until the time limit; then the
                message names *what*, the awaited object.
        """
        try:
            async with asyncio.timeout(self.limit_s):
                while True:
                    require(not self.faults, f"{self.name}: {'; '.join(self.faults)}")
                    if (found := find()) is not None:
                        return found
                    await self._changed.wait()
        except TimeoutError:
            raise StepMissed(f"{self.name}: {what} expected, not received in {self.limit_s:g} s") from None

    async def wait_published(self, count: int) -> list[Published]:
        """Return the first *count* events on Kafka, in order.

        Raises:
            StepMissed: see :meth:`wait_for`.
        """

        def find() -> list[Published] | None:
            found = list(self.published.values())[:count]
            return found if len(found) == count else None

        return await self.wait_for(f"{count} events on Kafka", find)

    async def wait_streamed(
        self, event_type: str, *, command_id: UUID | None = None, after: int = 0
    ) -> Mapping[str, Any]:
        """Return the first event of *event_type* on the stream with a version above *after*.

        With *command_id*, only an event whose payload contains this id is returned.

        Raises:
            StepMissed: see :meth:`wait_for`.
        """

        def matches(data: Mapping[str, Any]) -> bool:
            if data["event_type"] != event_type:
                return False
            return command_id is None or data["payload"].get("command_id") == str(command_id)

        def find() -> Mapping[str, Any] | None:
            later = (data for version, data in self.streamed.items() if version > after)
            return next((data for data in later if matches(data)), None)

        return await self.wait_for(f"{event_type} on the event stream", find)

    async def wait_streamed_count(self, count: int) -> None:
        """Return when the stream has sent *count* events.

        Raises:
            StepMissed: see :meth:`wait_for`.
        """
        await self.wait_for(
            f"{count} events on the event stream", lambda: len(self.streamed) >= count or None
        )

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
