"""Batches of rows: fetched, in flight, and the interface of the two ways to deliver them."""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol
from uuid import UUID, uuid4

from confluent_kafka import KafkaError

from relaybox.db import DedicatedConnection
from relaybox.relay._errors import LinkDown, RowFault
from relaybox.relay._kafka import ROW_CODES
from relaybox.relay._messages import Message
from relaybox.relay._postgres import Lane

__all__ = (
    "Batch",
    "Delivery",
    "Fetch",
    "Fetches",
    "InFlightBatch",
    "InFlightBatches",
    "LaneBatch",
    "Outcome",
    "Prepared",
    "TransactionResult",
    "TransactionState",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows that are published together."""

    messages: Sequence[Message]
    lanes: frozenset[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneBatch(Batch):
    """One lane's rows, claimed under an id that Kafka learns in the same transaction."""

    batch_id: UUID = field(default_factory=uuid4)
    #: Its row in ``relay_batches``, once it is claimed; None if it could not be: it must not be committed.
    number: Future[int | None] = field(default_factory=Future[int | None])

    @property
    def lane(self) -> int:
        """The one lane."""
        [lane] = self.lanes
        return lane


class TransactionState(Enum):
    """What is known of a transaction after :meth:`LaneProducer.publish`."""

    COMMITTED = "committed"
    #: The commit was never requested, and cannot be any more.
    UNPUBLISHED = "unpublished"
    #: Aborted: PostgreSQL has not confirmed the claim, or the lane has another owner.
    UNCLAIMED = "unclaimed"
    #: The outcome of the commit is unknown; the marker tells.
    IN_DOUBT = "in-doubt"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionResult:
    """How a transaction ended. Unless it was committed, its producer must not be used again."""

    state: TransactionState
    #: Why it failed; the rejection of a record takes precedence. None if it was committed or aborted.
    error: KafkaError | None = None

    @property
    def refused(self) -> bool:
        """Whether the broker rejected a record, as opposed to a failure of the link."""
        return self.error is not None and self.error.code() in ROW_CODES


@dataclass(kw_only=True, slots=True)
class Outcome:
    """What became of rows. Those in no list are as they were: PENDING."""

    #: Published, and so is every earlier row of their keys.
    sent: list[Message] = field(default_factory=list[Message])
    #: Failed through their own fault, or the link's; nothing behind them was published.
    faulty: list[tuple[Message, RowFault | LinkDown]] = field(
        default_factory=list[tuple[Message, RowFault | LinkDown]]
    )
    #: Set when the link failed: nothing may be published before :meth:`Delivery.connect` succeeds.
    link: LinkDown | None = None
    #: Caught in flight by the link's failure, and no later acknowledgement can publish them.
    interrupted: list[Message] = field(default_factory=list[Message])


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Fetched rows, divided into what may take off now and what is at fault."""

    batches: Sequence[Batch]
    outcome: Outcome


class Delivery(Protocol):
    """How rows reach Kafka. To be used in one event loop; blocking calls run in threads of its own."""

    #: Whether a batch may take off only after the one before has landed, whatever its lanes.
    one_batch_at_a_time: bool

    async def connect(self) -> None:
        """Reach a broker, learn anew what it accepts, and warm up.

        Raises:
            LinkDown: none answered in time.
        """
        ...

    def ready(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Those of the owned *lanes* that rows may be fetched of now; the others are made ready."""
        ...

    def paused_lanes(self) -> frozenset[int]:
        """Lanes of those that are ready that should not take off yet, unless there is a backlog."""
        ...

    async def prepare(self, messages: Sequence[Message]) -> Prepared:
        """Divide *messages* by what the brokers accept."""
        ...

    def publish(self, batch: Batch) -> asyncio.Task[Outcome]:
        """Publish *batch*, in order; the task never fails and is not to be cancelled."""
        ...

    async def claim(self, connection: DedicatedConnection, batches: Sequence[Batch]) -> None:
        """Write down what is being published, where that is needed; to be called right after the launch.

        Raises:
            DatabaseError: PostgreSQL did not answer; nothing of it will be published.
        """
        ...

    def note_recorded(self, batch: Batch) -> None:
        """PostgreSQL has recorded what became of *batch*."""
        ...

    async def trim_claims(self, connection: DedicatedConnection) -> None:
        """Remove what was needed until now only; called now and then."""
        ...

    def take_link_failure(self) -> LinkDown | None:
        """The link's failure that was met outside of batches since this was last asked."""
        ...

    def stuck_lanes(self) -> Mapping[int, str]:
        """Return the owned lanes that have published nothing for a while although they tried, and why."""
        ...

    def hung(self) -> bool:
        """Whether a call to Kafka lasts longer than all limits of such a call."""
        ...

    def set_deadline(self, monotonic_s: float) -> None:
        """Wait for no acknowledgement past this time; called when the relay stops."""
        ...

    async def serve_callbacks(self) -> None:
        """Let the clients do what they have to do while nothing is published."""
        ...

    async def close(self) -> None:
        """Drop everything that is not acknowledged (it is PENDING) and the connections."""
        ...


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
