"""Making the snapshots of sessions again from their events, and comparing them with the live table."""

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final
from uuid import UUID

from pydantic import ValidationError
from pydantic_core import from_json, to_json
from relaybox.commands import Event
from relaybox.db import Database, Executor, RetryTransaction, executor_of
from relaybox.events import RecordedEvent, fetch_stream, iterate_streams
from sqlalchemy.ext.asyncio import AsyncSession

from backend.genesis._state import GenesisSession
from backend.genesis.session import SQL, genesis
from backend.rebuilding import DifferenceKind, HistoryUnreadable

__all__ = ("Difference", "RebuildReport", "rebuild_sessions")

_BATCH_SESSIONS_MAX: Final = 100

#: The driver may decode JSONB or not; text is text.
_READ: Final = SQL.including("read", load=SQL["load"])

Document = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One session whose row is not what its events say."""

    session_id: UUID
    kind: DifferenceKind
    #: The columns that differ; empty unless DIFFERENT.
    fields: tuple[str, ...] = ()
    #: The row is now what the events say.
    repaired: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class RebuildReport:
    """What a run found."""

    #: Sessions that have events.
    sessions: int
    differences: int
    repaired: int


@dataclass(frozen=True, slots=True)
class _Rebuilt:
    state: GenesisSession
    created_at: datetime

    def then(self, event: RecordedEvent) -> "_Rebuilt":
        """The session after *event*, its next one.

        Raises:
            HistoryUnreadable: it cannot follow.
        """
        if event.version != self.state.version + 1:
            raise HistoryUnreadable(
                f"session {event.aggregate_id} lacks its event of version {self.state.version + 1}; "
                "restore domain_events from a backup"
            )
        if event.erased or self.state.erased:
            return _Rebuilt(
                self.state.without_content().model_copy(update={"version": event.version}), self.created_at
            )
        past = Event(type=event.type, event_version=event.event_version, payload=event.payload)
        try:
            after = self.state.apply(past).model_copy(update={"version": event.version})
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise HistoryUnreadable(
                f"session {event.aggregate_id} cannot be read at version {event.version} ({event.type}, "
                f"{type(error).__name__}); run a release that knows this event"
            ) from error
        return _Rebuilt(after, self.created_at)

    def document(self) -> Document:
        return self.state.model_dump(mode="json")


async def rebuild_sessions(
    database: Database, *, write: bool, on_difference: Callable[[Difference], None]
) -> RebuildReport:
    """Fold every session's events and compare the result with its row; *write* repairs what differs.

    May run beside a working product: what looks different is looked at again in one transaction,
    which sees events and row as of one moment, and which also repairs it. A row without events is
    removed. Memory does not grow with the number of sessions.

    Raises:
        HistoryUnreadable: a session's events make no session; those before it are done.
        DatabaseUnavailable: PostgreSQL is away.
    """
    sessions = differences = repaired = 0

    async def look_again(suspects: Sequence[UUID]) -> None:
        nonlocal differences, repaired
        for session_id in suspects:
            settle = partial(_settle, session_id=session_id, write=write)
            found = await database.run_in_transaction(settle)
            if found:
                differences += 1
                repaired += found.repaired
                on_difference(found)

    async with database.connection() as connection:
        async with aclosing(_batches(connection)) as batches:
            async for batch in batches:
                sessions += len(batch)
                await look_again(await _suspects(connection, batch))
        async with aclosing(_without_events(connection)) as pages:
            async for page in pages:
                await look_again(page)
    return RebuildReport(sessions=sessions, differences=differences, repaired=repaired)


async def _batches(executor: Executor) -> AsyncGenerator[list[_Rebuilt]]:
    batch: list[_Rebuilt] = []
    current: _Rebuilt | None = None
    async for event in iterate_streams(executor, genesis.aggregate_type):
        if current is None or str(current.state.id) != event.aggregate_id:
            batch += [current] if current else []
            if len(batch) >= _BATCH_SESSIONS_MAX:
                yield batch
                batch = []
            current = _begin(event)
        current = current.then(event)
    batch += [current] if current else []
    if batch:
        yield batch


def _begin(event: RecordedEvent) -> _Rebuilt:
    # An erased event keeps who recorded it; that of the first one is the owner.
    owner = event.metadata.get("user_id", "")
    return _Rebuilt(GenesisSession(id=UUID(event.aggregate_id), owner=owner), event.created_at)


async def _suspects(executor: Executor, batch: Sequence[_Rebuilt]) -> list[UUID]:
    live = await _live(executor, [one.state.id for one in batch])
    return [one.state.id for one in batch if live.get(one.state.id) != one.document()]


async def _live(executor: Executor, ids: Sequence[UUID]) -> Mapping[UUID, Document]:
    rows = await executor.fetch(_READ, ids)
    return {row["id"]: _as_read_today(from_json(row["state"])) for row in rows}


def _as_read_today(document: Document) -> Document:
    """The row as commands read it: a field that came with a later release has its default."""
    try:
        return GenesisSession.model_validate(document).model_dump(mode="json")
    except ValidationError:
        return document


async def _without_events(executor: Executor) -> AsyncGenerator[list[UUID]]:
    after = UUID(int=0)
    while rows := await executor.fetch(SQL["without_events_page"], after, _BATCH_SESSIONS_MAX):
        yield [row["id"] for row in rows]
        after = rows[-1]["id"]


async def _settle(db: AsyncSession, *, session_id: UUID, write: bool) -> Difference | None:
    executor = executor_of(db)
    live = (await _live(executor, [session_id])).get(session_id)
    rebuilt = await _rebuilt(executor, session_id)
    document = rebuilt.document() if rebuilt else None
    if live == document:
        return None
    if write:
        await _repair(executor, session_id, live, rebuilt)
    if document is None:
        return Difference(session_id=session_id, kind=DifferenceKind.EXTRA, repaired=write)
    if live is None:
        return Difference(session_id=session_id, kind=DifferenceKind.MISSING, repaired=write)
    fields = tuple(name for name, value in document.items() if live.get(name) != value)
    return Difference(session_id=session_id, kind=DifferenceKind.DIFFERENT, fields=fields, repaired=write)


async def _rebuilt(executor: Executor, session_id: UUID) -> _Rebuilt | None:
    rebuilt: _Rebuilt | None = None
    version = 0
    while events := await fetch_stream(
        executor, genesis.aggregate_type, str(session_id), after_version=version
    ):
        for event in events:
            rebuilt = (rebuilt or _begin(event)).then(event)
        version = events[-1].version
    return rebuilt


async def _repair(
    executor: Executor, session_id: UUID, live: Document | None, rebuilt: _Rebuilt | None
) -> None:
    if rebuilt is None:
        assert live is not None
        rows = await executor.fetch(SQL["discard"], session_id, live["version"])
    else:
        version = live["version"] if live else None
        row = {**rebuilt.document(), "expected_version": version, "created_at": rebuilt.created_at}
        rows = await executor.fetch(SQL["advance" if live else "create"], to_json([row]).decode())
    if not rows:
        raise RetryTransaction(f"session {session_id} moved on while it was repaired")
