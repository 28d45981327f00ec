"""Batches on their way to Kafka."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

from relaybox.relay._delivery import Batch, Outcome
from relaybox.relay._messages import Message

__all__ = ("InFlightBatch", "InFlightBatches")


@dataclass(kw_only=True, slots=True)
class InFlightBatch:
    """A batch on its way."""

    batch: Batch
    outcome: asyncio.Task[Outcome]
    #: Others do not wait for it any more.
    late: bool = False


class InFlightBatches:
    """What took off and has not been taken in yet."""

    def __init__(self) -> None:
        self._batches: list[InFlightBatch] = []

    def __iter__(self) -> Iterator[InFlightBatch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def messages(self) -> list[Message]:
        """Rows handed to Kafka whose fate is not known."""
        return [message for each in self._batches for message in each.batch.messages]

    def lanes(self) -> set[int]:
        """Lanes that have something on its way."""
        return {lane for each in self._batches for lane in each.batch.lanes}

    def late_rows(self) -> int:
        """Rows of those that others do not wait for."""
        return sum(len(each.batch.messages) for each in self._batches if each.late)

    def add(self, batch: Batch, outcome: asyncio.Task[Outcome]) -> None:
        """*batch* took off."""
        self._batches.append(InFlightBatch(batch=batch, outcome=outcome))

    def take_finished(self) -> list[InFlightBatch]:
        """Those whose outcome is known, which are none of these any more."""
        finished = [each for each in self._batches if each.outcome.done()]
        self._batches = [each for each in self._batches if not each.outcome.done()]
        return finished

    async def wait_for_all(self) -> None:
        """Wait until the outcome of each is known."""
        if self._batches:
            await asyncio.wait([each.outcome for each in self._batches])

    async def wait_for_prompt(self, limit_s: float | None) -> None:
        """Wait for all that are not late; who takes longer than *limit_s* is."""
        awaited = [each for each in self._batches if not each.late]
        if awaited:
            await asyncio.wait([each.outcome for each in awaited], timeout=limit_s)
            for each in awaited:
                each.late = not each.outcome.done()
