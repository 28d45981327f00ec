"""Fetched rows, batches in flight, and the interface that both delivery modes implement."""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from confluent_kafka import KafkaError

from relaybox.db import DedicatedConnection
from relaybox.kafka import RECORD_REJECTED
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
    "next_batch_rows",
)

#: In a backlog, a fetch grows to RELAY_BATCH_SIZE times this factor, but at most to the number of rows below:
#: one round trip to both servers for 5,000 rows is faster than 50 round trips for 100 rows each. More than
#: 5,000 rows would need over 150 MB of memory.
_BACKLOG_FACTOR: Final = 50
_BACKLOG_ROWS_MAX: Final = 5_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """Rows that are published together."""

    messages: Sequence[Message]
    #: Numbers of the lanes of the rows.
    lanes: frozenset[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class LaneBatch(Batch):
    """Rows of one lane, which are published in one Kafka transaction."""

    #: Id of the batch, written to the marker in the transaction and to the claim in ``relay_batches``.
    batch_id: UUID = field(default_factory=uuid4)
    #: Its result is the number of the claim of the batch in ``relay_batches``. The result None means that the
    #: batch was not claimed, so its transaction must not be committed.
    number: Future[int | None] = field(default_factory=Future[int | None])

    @property
    def lane(self) -> int:
        """Number of the lane of all rows."""
        [lane] = self.lanes
        return lane


class TransactionState(Enum):
    """State of a Kafka transaction after :meth:`LaneProducer.publish`."""

    #: The broker confirmed the commit.
    COMMITTED = "committed"
    #: The transaction failed before the relay requested a commit.
    UNPUBLISHED = "unpublished"
    #: The relay aborted: PostgreSQL did not confirm the claim in time, or the lane has another owner.
    UNCLAIMED = "unclaimed"
    #: The relay requested the commit and does not know the outcome; the lane's marker shows it.
    IN_DOUBT = "in-doubt"


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionResult:
    """Result of a Kafka transaction. After any state but COMMITTED, its producer must not be used again."""

    state: TransactionState
    #: The first rejection of a record; without one, the first error. None if COMMITTED or UNCLAIMED.
    error: KafkaError | None = None

    @property
    def refused(self) -> bool:
        """Whether the broker rejected a record."""
        return self.error is not None and self.error.code() in RECORD_REJECTED


@dataclass(kw_only=True, slots=True)
class Outcome:
    """Outcomes of rows. Rows that are in no list stay PENDING."""

    #: Published rows. All earlier rows of their keys are published too.
    sent: list[Message] = field(default_factory=list[Message])
    #: Rows that failed, with the cause. No later row of their keys is in ``sent``.
    faulty: list[tuple[Message, RowFault | LinkDown]] = field(
        default_factory=list[tuple[Message, RowFault | LinkDown]]
    )
    #: The failure of the link to Kafka, after which nothing is published until :meth:`Delivery.connect`
    #: succeeds; None if there is none.
    link: LinkDown | None = None
    #: Rows that were in flight when the link failed, and are known to be unpublished.
    interrupted: list[Message] = field(default_factory=list[Message])


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Result of :meth:`Delivery.prepare`."""

    #: Batches to publish.
    batches: Sequence[Batch]
    #: Faulty rows, and the failure of the link if the rows could not be checked.
    outcome: Outcome


class Delivery(Protocol):
    """Interface to publish batches to Kafka; call it in the event loop. Blocking calls run in threads."""

    #: Whether a batch of any lane may start only after the outcome of the last batch is known.
    one_batch_at_a_time: bool

    async def connect(self) -> None:
        """Connect to a broker, and read the limits of topics again.

        Raises:
            LinkDown: No broker responded in time.
        """
        ...

    def ready(self, lanes: Sequence[Lane]) -> list[Lane]:
        """Return the owned *lanes* that may publish; start the takeover of the others."""
        ...

    def paused_lanes(self) -> frozenset[int]:
        """Return the numbers of ready lanes that should not start a batch yet; ignored in a backlog."""
        ...

    async def prepare(self, messages: Sequence[Message]) -> Prepared:
        """Divide *messages* into batches to publish and faulty rows; rows in neither stay PENDING."""
        ...

    def publish(self, batch: Batch) -> asyncio.Task[Outcome]:
        """Start to publish *batch* in order; the returned task never fails, and must not be cancelled."""
        ...

    async def claim(self, connection: DedicatedConnection, batches: Sequence[Batch]) -> None:
        """Claim *batches* in PostgreSQL, if the delivery needs claims; call this right after :meth:`publish`.

        A claim is a row of ``relay_batches``; it must exist before the batch is committed to Kafka.

        Raises:
            DatabaseError: PostgreSQL did not confirm the claims; none of *batches* will be published.
        """
        ...

    def note_recorded(self, batch: Batch) -> None:
        """Remember for :meth:`trim_claims` that PostgreSQL has recorded the outcome of *batch*."""
        ...

    async def trim_claims(self, connection: DedicatedConnection) -> None:
        """Delete claims in PostgreSQL that no takeover needs; called about once per second."""
        ...

    def take_link_failure(self) -> LinkDown | None:
        """Return and forget the last failure of the link to Kafka outside of batches; None: no failure."""
        ...

    def stuck_lanes(self) -> Mapping[int, str]:
        """Return the reasons, by lane number, of owned lanes that have failed to publish for 10 s."""
        ...

    def hung(self) -> bool:
        """Return whether a call to Kafka has taken over 60 s, although its time limits add up to less."""
        ...

    def set_deadline(self, monotonic_s: float) -> None:
        """Wait for Kafka only until *monotonic_s*, by ``time.monotonic()``; called when the relay stops."""
        ...

    async def serve_callbacks(self) -> None:
        """Execute due callbacks of the Kafka clients; called while no batch is published."""
        ...

    async def close(self) -> None:
        """Discard unacknowledged records, whose rows stay PENDING, and close all clients."""
        ...


@dataclass(kw_only=True, slots=True)
class InFlightBatch:
    """A batch whose outcome is not known or was not collected yet."""

    batch: Batch
    outcome: asyncio.Task[Outcome]
    #: Whether the batch takes so long that other lanes start their next batches without waiting.
    late: bool = False


class InFlightBatches:
    """Batches that were started, until :meth:`take_finished` returns them."""

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
        """Add the started *batch*; *outcome* is the task of :meth:`Delivery.publish`."""
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
        """Wait for batches that are not late; unfinished ones are late after *limit_s* s (None: never)."""
        awaited = [each for each in self._batches if not each.late]
        if awaited:
            await asyncio.wait([each.outcome for each in awaited], timeout=limit_s)
            for each in awaited:
                each.late = not each.outcome.done()


@dataclass(kw_only=True, slots=True)
class PendingFetch:
    """A query for rows: running, or ended with rows that are not published yet."""

    reading: asyncio.Task[list[Message]]
    #: Number and epoch of each lane that the query reads.
    fences: frozenset[tuple[int, int]]
    #: Keys with a failed row that was not recorded yet when the query began.
    blocked_keys: set[str]
    #: Lanes with an earlier row that was not published (G21): their rows must be read again.
    stale_lanes: set[int] = field(default_factory=set[int])


class Fetches:
    """The queries for rows, in the order in which their rows are published.

    Usually there is one. In a backlog, a second query reads the next rows before the rows of the first query
    are published.

    Invariant: fetched rows are published only if all rows of their lane that the relay had fetched before are
    published. Code that does not publish a fetched row must invalidate the row's lane.
    """

    def __init__(self) -> None:
        self._pending: list[PendingFetch] = []

    def __len__(self) -> int:
        return len(self._pending)

    def start(
        self, reading: Coroutine[Any, Any, list[Message]], lanes: Iterable[Lane], blocked_keys: set[str]
    ) -> None:
        """Start the query *reading*; the previous query must have ended, because both use one connection."""
        fences = frozenset((lane.lane, lane.epoch) for lane in lanes)
        self._pending.append(
            PendingFetch(reading=asyncio.create_task(reading), fences=fences, blocked_keys=blocked_keys)
        )

    def first(self) -> PendingFetch:
        """Return the query whose rows are published next."""
        return self._pending[0]

    def remove_first(self) -> None:
        """Remove the first query; the caller publishes its rows now, or later queries read them again."""
        del self._pending[0]

    def invalidate(self, lanes: Iterable[int]) -> None:
        """Require that fetched rows of *lanes* are read again, because an earlier row was not published."""
        stale = set(lanes)
        for fetch in self._pending:
            fetch.stale_lanes |= stale

    def invalidate_all(self) -> None:
        """Require that all fetched rows are read again."""
        for fetch in self._pending:
            fetch.stale_lanes.update(lane for lane, _ in fetch.fences)

    def invalidate_not_started(self, fetched: Sequence[Message], started: Sequence[Batch]) -> None:
        """Require that a lane is read again if one of its *fetched* rows is not in the *started* batches."""
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


def next_batch_rows(limit: int, fetched: int, batch_size: int) -> int:
    """Return the maximum number of rows of the next query.

    If the last query returned fewer than *limit* rows, the result is *batch_size*. Otherwise it is twice
    *limit*, but at most 50 times *batch_size*, at most 5,000, and never less than *batch_size*.

    Args:
        limit: Maximum number of rows of the last query.
        fetched: Number of rows that the last query returned.
        batch_size: ``RELAY_BATCH_SIZE``.
    """
    if fetched < limit:
        return batch_size
    return max(batch_size, min(2 * limit, _BACKLOG_FACTOR * batch_size, _BACKLOG_ROWS_MAX))


class RowReader:
    """Read publishable rows; in a backlog, more rows per query."""

    def __init__(self, settings: RelaySettings, low_watermark: LowWatermark, counters: Counters) -> None:
        self._settings = settings
        self._low_watermark = low_watermark
        self._counters = counters
        #: Maximum number of rows of the next query; more than ``RELAY_BATCH_SIZE`` in a backlog.
        self.batch_rows = settings.batch_size
        self._read_at_s = 0.0
        self._polled = False

    def idle_s(self) -> float:
        """Return the seconds since the last query began."""
        return time.monotonic() - self._read_at_s

    def note_poll(self) -> None:
        """Count the rows of the next query as found by polling, because no notification arrived."""
        self._polled = True

    def reset(self) -> None:
        """Limit the next query to ``RELAY_BATCH_SIZE`` rows, as without a backlog."""
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
        """Read at most *rows_max* publishable rows of *lanes*.

        Args:
            connection: Connection for queries of rows.
            lanes: Owned lanes to read; empty: return no rows.
            excluded: ``seq`` of rows that are in flight, not recorded, or already read.
            rows_max: Maximum number of rows.
            probing: Whether the row is the probe of the circuit breaker; ``batch_rows`` then does not change.
        """
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
