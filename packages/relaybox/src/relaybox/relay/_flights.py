"""Batches on their way to Kafka."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from relaybox.relay._delivery import Batch, Outcome
from relaybox.relay._messages import Message

__all__ = ("Flight", "Flights")


@dataclass(kw_only=True, slots=True)
class Flight:
    """A batch on its way."""

    batch: Batch
    outcome: asyncio.Task[Outcome]
    #: Others do not wait for it any more.
    late: bool = False


class Flights:
    """What took off and has not been taken in yet."""

    def __init__(self) -> None:
        self._flights: list[Flight] = []

    def __iter__(self) -> Iterator[Flight]:
        return iter(self._flights)

    def __len__(self) -> int:
        return len(self._flights)

    def messages(self) -> list[Message]:
        """Rows handed to Kafka whose fate is not known."""
        return [message for flight in self._flights for message in flight.batch.messages]

    def lanes(self) -> set[int]:
        """Lanes that have something on its way."""
        return {lane for flight in self._flights for lane in flight.batch.lanes}

    def late_rows(self) -> int:
        """Rows of those that others do not wait for."""
        return sum(len(flight.batch.messages) for flight in self._flights if flight.late)

    def begin(self, batch: Batch, outcome: asyncio.Task[Outcome]) -> None:
        """*batch* took off."""
        self._flights.append(Flight(batch=batch, outcome=outcome))

    def landed(self) -> list[Flight]:
        """Those whose outcome is known, which are none of these any more."""
        landed = [flight for flight in self._flights if flight.outcome.done()]
        self._flights = [flight for flight in self._flights if not flight.outcome.done()]
        return landed

    async def all_landed(self) -> None:
        """Wait until the outcome of each is known."""
        if self._flights:
            await asyncio.wait([flight.outcome for flight in self._flights])

    async def wave_landed(self, limit_s: float | None) -> None:
        """Wait for all that are not late; who takes longer than *limit_s* is."""
        awaited = [flight for flight in self._flights if not flight.late]
        if awaited:
            await asyncio.wait([flight.outcome for flight in awaited], timeout=limit_s)
            for flight in awaited:
                flight.late = not flight.outcome.done()
