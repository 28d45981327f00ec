"""Batches of rows: fetched, in flight, and the interface of the two ways to deliver them."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol
from uuid import UUID, uuid4

from confluent_kafka import KafkaError

from relaybox.db import DedicatedConnection
from relaybox.kafka import RECORD_REJECTED
from relaybox.relay._backoff import next_batch_rows
from relaybox.relay._errors import LinkDown, RowFault
from relaybox.relay._messages import Message
from relaybox.relay._postgres import Lane, LowWatermark, fetch_batch
from relaybox.relay._statistics import Counters
from relaybox.settings import RelaySettings

__all__ = (
    "Batch",
    "Delivery",
    "Fetches",
    "InFlightBatch",
    "InFlightBatches",
    "LaneBatch",
    "Outcome",
    "PendingFetch",
    "Prepared",
    "RowReader",
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
    """Rows of one lane; the marker in their transaction contains the batch's id."""

    batch_id: UUID = field(default_factory=uuid4)
    #: Number of the batch's claim in ``relay_batches``; None if it has none and must not be committed.
    number: Future[int | None] = field(default_factory=Future[int | None])

    @property
    def lane(self) -> int:
        """The lane of all rows."""
        [lane] = self.lanes
        return lane


class TransactionState(Enum):
    """What the relay knows of a transaction after :meth:`LaneProducer.publish`."""

    COMMITTED = "committed"
    #: The relay never requested the commit, and cannot any more.
    UNPUBLISHED = "unpublished"
    #: Aborted: PostgreSQL has not confirmed the claim, or the lane has another owner.
    UNCLAIMED = "unclaimed"
    #: The outcome of the commit is unknown; the lane's marker shows it.
    IN_DOUBT = "in-doubt"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionResult:
    """How a transaction ended. Unless it was committed, its producer must not be used again."""

    state: TransactionState
    #: Why the transaction failed, first the rejection of a record. None if it was committed or aborted.
    error: KafkaError | None = None

    @property
    def refused(self) -> bool:
        """Whether the broker rejected a record. Otherwise the link failed, or nothing did."""
        return self.error is not None and self.error.code() in RECORD_REJECTED


@dataclass(kw_only=True, slots=True)
class Outcome:
    """The outcomes of rows. Rows in no list stay PENDING."""

    #: Published; so is every earlier row of their keys.
    sent: list[Message] = field(default_factory=list[Message])
    #: Failed because of the row or the link; no later row of their keys was published.
    faulty: list[tuple[Message, RowFault | LinkDown]] = field(
        default_factory=list[tuple[Message, RowFault | LinkDown]]
    )
    #: Why the link failed; None if it did not. Publish nothing before :meth:`Delivery.connect` succeeds.
    link: LinkDown | None = None
    #: Rows that were in flight when the link failed, and were certainly not published.
    interrupted: list[Message] = field(default_factory=list[Message])


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Fetched rows, divided into batches to publish and faulty rows."""

    batches: Sequence[Batch]
    outcome: Outcome


class Delivery(Protocol):
    """Publishes batches to Kafka. Use it in one event loop; blocking calls run in its own threads."""

    #: Whether a batch of any lane may start only after the outcome of the last batch is known.
    one_batch_at_a_time: bool

    async def connect(self) -> None:
        """Reach a broker, read the limits of topics again, and warm up.

        Raises:
            LinkDown: No broker responded in time.
        """
        ...

    def ready(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return those of the owned *lanes* that may be fetched from; start to take over the others."""
        ...

    def paused_lanes(self) -> frozenset[int]:
        """Return the ready lanes that should start no batch yet; not used in a backlog."""
        ...

    async def prepare(self, messages: Sequence[Message]) -> Prepared:
        """Divide *messages* into batches that the brokers accept, and faulty rows."""
        ...

    def publish(self, batch: Batch) -> asyncio.Task[Outcome]:
        """Publish *batch* in order; the task never fails and must not be cancelled."""
        ...

    async def claim(self, connection: DedicatedConnection, batches: Sequence[Batch]) -> None:
        """Claim *batches* in PostgreSQL, if the delivery needs claims; call it right after publishing.

        Raises:
            DatabaseError: PostgreSQL did not respond; none of *batches* will be published.
        """
        ...

    def note_recorded(self, batch: Batch) -> None:
        """Note that PostgreSQL has recorded the outcome of *batch*."""
        ...

    async def trim_claims(self, connection: DedicatedConnection) -> None:
        """Delete claims in PostgreSQL that no takeover needs any more; called about once per second."""
        ...

    def take_link_failure(self) -> LinkDown | None:
        """Return and forget the last failure of the link that no batch reported; None without one."""
        ...

    def stuck_lanes(self) -> Mapping[int, str]:
        """Return the owned lanes that have failed to publish for 10 s, with the reason."""
        ...

    def hung(self) -> bool:
        """Return whether a call to Kafka lasts longer than all its time limits."""
        ...

    def set_deadline(self, monotonic_s: float) -> None:
        """Wait for no acknowledgement past this time; called when the relay stops."""
        ...

    async def serve_callbacks(self) -> None:
        """Run due callbacks of the Kafka clients while no batch is published."""
        ...

    async def close(self) -> None:
        """Discard what is not acknowledged (it is PENDING), and close all clients."""
        ...


@dataclass(kw_only=True, slots=True)
class InFlightBatch:
    """A batch whose outcome is not known yet, or was not collected."""

    batch: Batch
    outcome: asyncio.Task[Outcome]
    #: Other lanes no longer wait for this batch.
    late: bool = False


class InFlightBatches:
    """Batches that were started and not collected yet; a finished one counts until it is collected."""

    def __init__(self) -> None:
        self._batches: list[InFlightBatch] = []

    def __iter__(self) -> Iterator[InFlightBatch]:
        return iter(self._batches)

    def __len__(self) -> int:
        return len(self._batches)

    def messages(self) -> list[Message]:
        """Return the rows of all batches."""
        return [message for each in self._batches for message in each.batch.messages]

    def lanes(self) -> set[int]:
        """Return the lanes that have a batch in flight."""
        return {lane for each in self._batches for lane in each.batch.lanes}

    def add(self, batch: Batch, outcome: asyncio.Task[Outcome]) -> None:
        """Add *batch*, which was started."""
        self._batches.append(InFlightBatch(batch=batch, outcome=outcome))

    def take_finished(self) -> list[InFlightBatch]:
        """Remove and return the batches whose outcome is known."""
        finished = [each for each in self._batches if each.outcome.done()]
        self._batches = [each for each in self._batches if not each.outcome.done()]
        return finished

    async def wait_for_all(self) -> None:
        """Wait until the outcome of each batch is known."""
        if self._batches:
            await asyncio.wait([each.outcome for each in self._batches])

    async def wait_for_prompt(self, limit_s: float | None) -> None:
        """Wait for all batches that are not late; those that take longer than *limit_s* become late."""
        awaited = [each for each in self._batches if not each.late]
        if awaited:
            await asyncio.wait([each.outcome for each in awaited], timeout=limit_s)
            for each in awaited:
                each.late = not each.outcome.done()


@dataclass(kw_only=True, slots=True)
class PendingFetch:
    """A query for rows that runs, or has ended while its rows are not published yet."""

    reading: asyncio.Task[list[Message]]
    #: The lanes that the query reads from, each with its epoch.
    fences: frozenset[tuple[int, int]]
    #: Keys with a failed row that was not recorded yet when the query began.
    blocked_keys: set[str]
    #: Lanes of which the relay must publish earlier rows first (G21): rows of these lanes are read again.
    stale_lanes: set[int] = field(default_factory=set[int])


class Fetches:
    """The queries for rows: one, and in a backlog a second one that runs while the first one's rows wait.

    Invariant: fetched rows are published only if no row of their lane that the relay knew when their query
    began is still to be published. Code that leaves such a row unpublished invalidates the row's lane.
    """

    def __init__(self) -> None:
        self._pending: list[PendingFetch] = []

    def __len__(self) -> int:
        return len(self._pending)

    def start(
        self, reading: Coroutine[Any, Any, list[Message]], lanes: Iterable[Lane], blocked_keys: set[str]
    ) -> None:
        """Start *reading*; the previous query must have ended, because both use one connection."""
        fences = frozenset((lane.lane, lane.epoch) for lane in lanes)
        self._pending.append(
            PendingFetch(reading=asyncio.create_task(reading), fences=fences, blocked_keys=blocked_keys)
        )

    def first(self) -> PendingFetch:
        """Return the fetch whose rows are published next; it stays the first until :meth:`remove_first`."""
        return self._pending[0]

    def remove_first(self) -> None:
        """Remove the first fetch; its rows are published now or read again later."""
        del self._pending[0]

    def invalidate(self, lanes: Iterable[int]) -> None:
        """Note that a row of each of *lanes* was not published: later rows of the lane must be read again."""
        stale = set(lanes)
        for fetch in self._pending:
            fetch.stale_lanes |= stale

    def invalidate_all(self) -> None:
        """Note that the rows of all fetches must be read again."""
        for fetch in self._pending:
            fetch.stale_lanes.update(lane for lane, _ in fetch.fences)

    def invalidate_not_started(self, fetched: Sequence[Message], started: Sequence[Batch]) -> None:
        """Invalidate the lanes of those *fetched* rows that are not in the *started* batches."""
        if self._pending and sum(len(batch.messages) for batch in started) < len(fetched):
            in_flight = {message.seq for batch in started for message in batch.messages}
            self.invalidate(message.lane for message in fetched if message.seq not in in_flight)

    async def cancel(self) -> None:
        """Cancel all queries."""
        reading = [fetch.reading for fetch in self._pending]
        self._pending.clear()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


class RowReader:
    """Reads publishable rows, and more of them per query while there is a backlog."""

    def __init__(self, settings: RelaySettings, low_watermark: LowWatermark, counters: Counters) -> None:
        self._settings = settings
        self._low_watermark = low_watermark
        self._counters = counters
        #: How many rows the next query asks for; more than ``RELAY_BATCH_SIZE`` in a backlog.
        self.batch_rows = settings.batch_size
        self._read_at_s = 0.0
        self._polled = False

    def idle_s(self) -> float:
        """Return the seconds since the last query began."""
        return time.monotonic() - self._read_at_s

    def note_poll(self) -> None:
        """Note that no notification has announced the rows that are read next (G28)."""
        self._polled = True

    def reset(self) -> None:
        """Read ``RELAY_BATCH_SIZE`` rows with the next query, as without a backlog."""
        self.batch_rows = self._settings.batch_size

    async def read(
        self,
        connection: DedicatedConnection,
        lanes: Sequence[Lane],
        excluded: Sequence[int],
        rows_max: int,
        *,
        probing: bool,
    ) -> list[Message]:
        """Read at most *rows_max* publishable rows of *lanes*, without the *excluded* ones."""
        self._read_at_s = time.monotonic()
        if not lanes:
            return []
        fetched = await fetch_batch(
            connection,
            lanes,
            rows_max=rows_max,
            in_flight=excluded,
            start_seq=self._low_watermark.poll_start(),
            cloudevents=self._settings.cloudevents,
        )
        if fetched:
            await self._low_watermark.advance(connection, fetched[-1].seq)
        if self._polled:
            self._counters.polled_total += len(fetched)
        self._polled = False
        if not probing:
            self.batch_rows = next_batch_rows(rows_max, len(fetched), self._settings.batch_size)
        return fetched
