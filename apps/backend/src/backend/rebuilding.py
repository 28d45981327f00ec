"""Compute the rows of an aggregate type from its events, compare them with the stored rows, and repair these.

Each application implements a :class:`Projection` for its aggregate type.
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
    """Raised when the events of an aggregate give no state: an event is unknown, missing or malformed.

    The rows of that aggregate are not changed.
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
    #: Names of the columns or tables that differ.
    parts: tuple[str, ...]
    #: True if this run repaired the rows.
    repaired: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RebuildReport:
    """The counts of one run of :func:`rebuild`."""

    #: Aggregates that have events, including those whose events were erased.
    aggregates: int
    events: int
    #: Aggregates whose rows differed from their events.
    differences: int
    #: Aggregates whose rows were repaired.
    repaired: int


@dataclass(frozen=True, kw_only=True, slots=True)
class RowChange(Generic[Rows]):
    """The rows of one aggregate: as stored, and as computed from its events."""

    aggregate_id: UUID
    stored: Rows
    rebuilt: Rows
    #: Time of the aggregate's first event; None if the aggregate has no events.
    created_at: datetime | None


class Projection(ABC, Generic[State, Rows]):
    """Computes the rows of one aggregate type from events, and reads and writes the stored rows.

    ``State`` is the state of one aggregate, ``Rows`` its rows, in a form that can be compared.
    """

    aggregate_type: str
    #: The event types with the payload versions that :meth:`apply` gets.
    event_types: EventTypes
    #: The word for an aggregate in error messages, such as ``session``.
    noun: str
    #: The value of ``Rows`` for an aggregate without rows.
    no_rows: Rows
    #: Maximum number of aggregates that one transaction repairs. More than 1 requires :meth:`lock`: without
    #: locks, a concurrent command on one of them makes the whole transaction start again.
    repaired_together_max: int = 1

    @abstractmethod
    def apply(self, state: State | None, event: RecordedEvent, *, erased: bool) -> State:
        """Return the state after *event*.

        Args:
            state: The state before *event*, which may be changed in place; None before the first event.
            event: The next event of the aggregate.
            erased: The content of this event or of an earlier event of the aggregate was erased.

        Raises:
            ValueError, KeyError, TypeError, AssertionError: The event is unknown, malformed or impossible.
        """

    @abstractmethod
    def rows_of(self, state: State) -> Rows:
        """Return the rows of *state*; they can be compared with those that :meth:`read` returns."""

    @abstractmethod
    def differing_parts(self, change: RowChange[Rows]) -> tuple[str, ...]:
        """Return the names of the columns or tables in which stored and computed rows differ."""

    @abstractmethod
    async def read(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> Mapping[UUID, Rows]:
        """Read the stored rows, by aggregate id; aggregates without rows may be missing in the result."""

    @abstractmethod
    async def write(self, executor: Executor, changes: Sequence[RowChange[Rows]]) -> None:
        """Replace the stored rows of each change by the rebuilt rows.

        Raises:
            RetryTransaction: A row was changed after :meth:`read` had read it.
        """

    @abstractmethod
    async def ids_without_events(self, executor: Executor, after: UUID, limit: int) -> list[UUID]:
        """Return up to *limit* ids above *after*, ascending, of aggregates that have rows but no events."""

    async def lock(self, executor: Executor, aggregate_ids: Sequence[UUID]) -> None:
        """Lock the aggregates until the end of the transaction.

        By default this does nothing: :meth:`write` then has to detect concurrent changes by the versions of
        the rows.
        """


@dataclass(slots=True)
class _Fold(Generic[State]):
    """The state of one aggregate after the events that were applied so far."""

    created_at: datetime
    state: State | None = None
    version: int = 0
    erased: bool = False

    def add(self, projection: Projection[State, Rows], event: RecordedEvent) -> None:
        """Apply *event*.

        Raises:
            HistoryUnreadable: *event* is not the event of the next version, or cannot be applied.
        """
        if event.version != self.version + 1:
            raise HistoryUnreadable(
                f"{projection.noun} {event.aggregate_id} lacks its event of version {self.version + 1}; "
                "restore the rows of domain_events from a backup"
            )
        self.version = event.version
        self.erased = self.erased or event.payload.get("erased") is True
        try:
            self.state = projection.apply(self.state, event, erased=self.erased)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise HistoryUnreadable(
                f"{projection.noun} {event.aggregate_id} cannot be read at version {event.version} "
                f"({event.type}, {type(error).__name__}); rebuild with a release that can read this event"
            ) from error


async def rebuild(
    database: Database,
    projection: Projection[State, Rows],
    *,
    write: bool,
    on_difference: Callable[[Difference], None],
) -> RebuildReport:
    """Compare the rows of every aggregate with its events, and repair rows that differ.

    The services may run meanwhile. The first comparison reads events and rows at different times, so a
    concurrent command can look like a difference. Therefore aggregates that differ are compared again, and
    repaired, in a transaction that reads events and rows as of one moment. Memory does not grow with the
    number of aggregates.

    Args:
        database: The database of the product, with at least two connections.
        projection: Computes, reads and writes the rows of the aggregate type.
        write: Repair the rows; rows without events are deleted. If false, only report.
        on_difference: Called with each aggregate that differs.

    Raises:
        HistoryUnreadable: The events of an aggregate give no state; earlier batches stay repaired.
        EventVersionUnknown, EventUpcastFailed: The payload of an event cannot be converted to its declared
            version; earlier batches stay repaired.
        DatabaseUnavailable: PostgreSQL cannot be reached.
    """
    aggregates = events = 0
    differences: list[bool] = []

    async def compare_again(aggregate_ids: Sequence[UUID]) -> None:
        for start in range(0, len(aggregate_ids), projection.repaired_together_max):
            chosen = aggregate_ids[start : start + projection.repaired_together_max]
            work = partial(_compare_and_repair, projection=projection, aggregate_ids=chosen, write=write)
            for difference in await database.run_in_transaction(work):
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


async def _compare_and_repair(
    db: AsyncSession, *, projection: Projection[State, Rows], aggregate_ids: Sequence[UUID], write: bool
) -> list[Difference]:
    """Compare the rows of the aggregates with their events, all read in the transaction of *db*.

    Return the differences; with *write*, the rows are repaired.
    """
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
