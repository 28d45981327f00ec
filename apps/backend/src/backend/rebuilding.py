"""Fold all events of an aggregate type again, compare the result with the stored rows, and repair the rows.

What differs between applications is a :class:`Projection`: how a state follows from events, and where its
rows are stored.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Final, Generic, TypeVar
from uuid import UUID

from relaybox.db import Database, Executor, executor_of
from relaybox.errors import RelayboxError
from relaybox.events import EventTypes, RecordedEvent, fetch_stream, iterate_streams
from sqlalchemy.ext.asyncio import AsyncSession

__all__ = (
    "Difference",
    "DifferenceKind",
    "HistoryUnreadable",
    "Projection",
    "RebuildReport",
    "RowChange",
    "rebuild",
)

#: Aggregates that are compared together, and repaired in one transaction.
_BATCH_AGGREGATES_MAX: Final = 100

State = TypeVar("State")
Rows = TypeVar("Rows")


class HistoryUnreadable(RelayboxError):
    """Raised when the events of an aggregate make no state: one is unknown, missing or malformed.

    Nothing was changed for that aggregate.
    """

    error_code = "HISTORY_UNREADABLE"


class DifferenceKind(StrEnum):
    """How the stored rows of an aggregate differ from its events."""

    MISSING = "MISSING"  # events, but no rows
    EXTRA = "EXTRA"  # rows, but no events
    DIFFERENT = "DIFFERENT"  # both, with other values


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One aggregate whose stored rows differ from its events."""

    aggregate_id: UUID
    kind: DifferenceKind
    #: The columns or tables that differ, as the projection names them.
    parts: tuple[str, ...]
    #: The rows were corrected.
    repaired: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RebuildReport:
    """The counts of one run."""

    #: Aggregates that have events, erased ones included.
    aggregates: int
    events: int
    differences: int
    repaired: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChange(Generic[Rows]):
    """The rows of one aggregate as they are stored and as its events make them."""

    aggregate_id: UUID
    stored: Rows
    rebuilt: Rows
    #: When its first event was recorded; None without events.
    created_at: datetime | None


class Projection(ABC, Generic[State, Rows]):
    """How the rows of one aggregate type follow from its events, and where the rows are stored."""

    aggregate_type: str
    #: The versions in which :meth:`apply` gets payloads.
    event_types: EventTypes
    #: What error messages call an aggregate.
    noun: str
    #: The rows of an aggregate that has none.
    no_rows: Rows
    #: How many aggregates one transaction repairs. More than 1 needs :meth:`lock`: otherwise one concurrent
    #: command makes the whole transaction start again.
    repaired_together_max: int = 1

    @abstractmethod
    def apply(self, state: State | None, event: RecordedEvent, *, erased: bool) -> State:
        """Return the state after *event*; *state* may change in place, and is None before the first event.

        *erased*: the content of this event or of an earlier one was erased.

        Raises:
            ValueError, KeyError, TypeError, AssertionError: The event is unknown, malformed or impossible.
        """

    @abstractmethod
    def rows_of(self, state: State) -> Rows:
        """Return the rows of *state*, comparable with what :meth:`read` returns."""

    @abstractmethod
    def differing_parts(self, change: RowChange[Rows]) -> tuple[str, ...]:
        """Name the columns or tables that differ."""

    @abstractmethod
    async def read(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> Mapping[UUID, Rows]:
        """Read the stored rows; an aggregate without rows may be left out."""

    @abstractmethod
    async def write(self, executor: Executor, changes: Sequence[RowChange[Rows]]) -> None:
        """Make the stored rows equal to the rebuilt ones.

        Raises:
            RetryTransaction: A row was changed since it was read.
        """

    @abstractmethod
    async def ids_without_events(self, executor: Executor, after: UUID, limit: int) -> list[UUID]:
        """Read at most *limit* ids above *after* of aggregates that have rows and no event, in order."""

    async def lock(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> None:
        """Lock the aggregates for this transaction; not needed where :meth:`write` checks versions."""


@dataclass(slots=True)
class _Fold(Generic[State]):
    """The state of one aggregate after its events so far."""

    created_at: datetime
    state: State | None = None
    version: int = 0
    erased: bool = False

    def add(self, projection: Projection[State, Rows], event: RecordedEvent) -> None:
        """Apply *event*.

        Raises:
            HistoryUnreadable: It is not the next event, or cannot be applied.
        """
        if event.version != self.version + 1:
            raise HistoryUnreadable(
                f"{projection.noun} {event.aggregate_id} lacks its event of version {self.version + 1}; "
                "restore domain_events from a backup"
            )
        self.version = event.version
        self.erased = self.erased or event.payload.get("erased") is True
        try:
            self.state = projection.apply(self.state, event, erased=self.erased)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise HistoryUnreadable(
                f"{projection.noun} {event.aggregate_id} cannot be read at version {event.version} "
                f"({event.type}, {type(error).__name__}); run a release that knows this event"
            ) from error


async def rebuild(
    database: Database,
    projection: Projection[State, Rows],
    *,
    write: bool,
    on_difference: Callable[[Difference], None],
) -> RebuildReport:
    """Rebuild every aggregate from its events and compare it with its rows; *write* repairs differences.

    May run beside a working product: rows that seem to differ are compared once more in one transaction,
    which sees events and rows as of one moment, and which also repairs them. Rows without events are removed.
    Memory does not grow with the number of aggregates.

    Raises:
        HistoryUnreadable: The events of an aggregate make no state; batches before it stay repaired.
        EventVersionUnknown, EventUpcastFailed: The payload of an event cannot be brought to its declared
            version; batches before it stay repaired.
        DatabaseUnavailable: PostgreSQL cannot be reached.
    """
    aggregates = events = 0
    differences: list[bool] = []

    async def compare_again(aggregate_ids: Sequence[UUID]) -> None:
        for start in range(0, len(aggregate_ids), projection.repaired_together_max):
            chosen = aggregate_ids[start : start + projection.repaired_together_max]
            settle = partial(_settle, projection=projection, aggregate_ids=chosen, write=write)
            for difference in await database.run_in_transaction(settle):
                differences.append(difference.repaired)
                on_difference(difference)

    async with database.connection() as connection:
        async with aclosing(_fold_batches(connection, projection)) as batches:
            async for batch in batches:
                aggregates += len(batch)
                events += sum(fold.version for fold in batch.values())
                stored = await projection.read(connection, list(batch))
                await compare_again(
                    [
                        aggregate_id
                        for aggregate_id, fold in batch.items()
                        if stored.get(aggregate_id, projection.no_rows) != _rows(projection, fold)
                    ]
                )
        after = UUID(int=0)
        while page := await projection.ids_without_events(connection, after, _BATCH_AGGREGATES_MAX):
            await compare_again(page)
            after = page[-1]
    return RebuildReport(
        aggregates=aggregates, events=events, differences=len(differences), repaired=sum(differences)
    )


async def _fold_batches(
    executor: Executor, projection: Projection[State, Rows]
) -> AsyncGenerator[dict[UUID, _Fold[State]]]:
    batch: dict[UUID, _Fold[State]] = {}
    async for event in iterate_streams(
        executor, projection.aggregate_type, event_types=projection.event_types
    ):
        aggregate_id = UUID(event.aggregate_id)
        if aggregate_id not in batch:
            if len(batch) >= _BATCH_AGGREGATES_MAX:
                yield batch
                batch = {}
            batch[aggregate_id] = _Fold(event.created_at)
        batch[aggregate_id].add(projection, event)
    if batch:
        yield batch


async def _settle(
    db: AsyncSession, *, projection: Projection[State, Rows], aggregate_ids: Sequence[UUID], write: bool
) -> list[Difference]:
    """Compare some aggregates in the transaction of *db*, and repair them if *write*."""
    executor = executor_of(db)
    await projection.lock(executor, aggregate_ids)
    stored = await projection.read(executor, aggregate_ids)
    changes: list[RowChange[Rows]] = []
    for aggregate_id in aggregate_ids:
        fold = await _fold_stream(executor, projection, aggregate_id)
        change = RowChange(
            aggregate_id=aggregate_id,
            stored=stored.get(aggregate_id, projection.no_rows),
            rebuilt=_rows(projection, fold),
            created_at=fold.created_at if fold else None,
        )
        if change.stored != change.rebuilt:
            changes.append(change)
    if write:
        await projection.write(executor, changes)
    return [_difference(projection, change, repaired=write) for change in changes]


async def _fold_stream(
    executor: Executor, projection: Projection[State, Rows], aggregate_id: UUID
) -> _Fold[State] | None:
    fold: _Fold[State] | None = None
    version = 0
    while events := await fetch_stream(
        executor,
        projection.aggregate_type,
        str(aggregate_id),
        after_version=version,
        event_types=projection.event_types,
    ):
        for event in events:
            fold = fold or _Fold(event.created_at)
            fold.add(projection, event)
        version = events[-1].version
    return fold


def _rows(projection: Projection[State, Rows], fold: _Fold[State] | None) -> Rows:
    return projection.no_rows if fold is None or fold.state is None else projection.rows_of(fold.state)


def _difference(
    projection: Projection[State, Rows], change: RowChange[Rows], *, repaired: bool
) -> Difference:
    kind = DifferenceKind.DIFFERENT
    if change.stored == projection.no_rows:
        kind = DifferenceKind.MISSING
    elif change.rebuilt == projection.no_rows:
        kind = DifferenceKind.EXTRA
    return Difference(
        aggregate_id=change.aggregate_id,
        kind=kind,
        parts=projection.differing_parts(change),
        repaired=repaired,
    )
