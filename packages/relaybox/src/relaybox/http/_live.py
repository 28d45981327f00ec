"""Send the events of aggregates to clients as live streams (G84).

A client's cursor is the version of the last event that the client got. Versions of an aggregate have no gaps,
so no event is skipped or sent twice. After a notification, a stream reads its new events from the database, a
page at a time. So the process keeps no queue of events for a slow client, and no database connection for an
idle client. One database connection per process listens for notifications; a query every 5 s finds changes
whose notification was lost.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import structlog
from pydantic_core import to_json

from relaybox.db import Database, DatabaseError, load_queries
from relaybox.events import EventTypes, EventUnreadable, RecordedEvent, fetch_stream
from relaybox.outbox import Listener
from relaybox.telemetry import traceback_of

__all__ = ("EventFilter", "LiveStreams", "ServerSentEvent", "VisibleEvents")

_SQL: Final = load_queries(__package__ or "relaybox.http", "http.sql")
_POLL_S: Final = 5.0
_PAGE_EVENTS: Final = 200
#: Seconds between comments that keep proxies from closing an idle stream.
_PING_S: Final = 15.0
#: Longest duration of a stream; its client reconnects with its cursor and a new token.
_AGE_S_MAX: Final = 1_800.0
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSentEvent:
    """One message of a stream (WHATWG HTML, section 9.2).

    If ``type`` is None, the message is a comment, which clients ignore.
    """

    type: str | None = None
    data: bytes = b""
    #: New cursor of the client; None leaves the client's cursor unchanged.
    id: int | None = None
    #: Milliseconds that a client waits before it reconnects.
    retry_ms: int | None = None

    def encode(self) -> bytes:
        """Return the event in the wire format."""
        lines: list[bytes] = []
        if self.retry_ms is not None:
            lines.append(b"retry: %d" % self.retry_ms)
        if self.type is None:
            return b"\n".join([*lines, b": ping", b"", b""])
        if self.id is not None:
            lines.append(b"id: %d" % self.id)
        return b"\n".join([*lines, b"event: " + self.type.encode(), b"data: " + self.data, b"", b""])


@dataclass(frozen=True, kw_only=True, slots=True)
class VisibleEvents:
    """The events of a page that the client may see, as decided by an :data:`EventFilter`."""

    #: The events to send: all events of the page or the first ones, in their order; payloads may be redacted.
    #: The stream never sends the other events of the page, because it does not read them again.
    events: Sequence[RecordedEvent] = ()
    #: Whether the stream ends after these events.
    ends: bool = False


EventFilter = Callable[[Sequence[RecordedEvent]], Awaitable[VisibleEvents]]
"""Function that decides which events of a page the client may see, and whether the stream ends.

A stream calls the function with each page of events before the page is sent, and with an empty page after a
notification without new events or after 15 s without a notification. So a client that has lost the right to
read gets no events that were recorded after the loss.
"""


@dataclass(eq=False, slots=True)
class _Subscriber:
    aggregate_type: str
    aggregate_id: str
    #: Ids of the aggregates whose notifications wake the stream: the stream's aggregate, and ``woken_by``.
    keys: frozenset[str]
    event_filter: EventFilter
    event_types: EventTypes
    news: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(eq=False, slots=True)
class _StreamPosition:
    """The position of a stream: what was sent so far."""

    #: Version of the last event that was read.
    version: int
    #: Status and progress that the stream sent last, by id of the task; only tasks that have not ended.
    tasks: dict[UUID, tuple[str, Decimal]] = field(default_factory=dict[UUID, tuple[str, Decimal]])
    ends: bool = False


async def _show_all(events: Sequence[RecordedEvent]) -> VisibleEvents:
    return VisibleEvents(events=events)


class LiveStreams:
    """Create the live streams of one process, and wake each stream when its aggregate changes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listener = Listener(database, self._on_keys)
        self._subscribers: dict[str, set[_Subscriber]] = {}
        #: Result of the last poll, by aggregate id: version, and time of the last change of a task.
        self._positions: dict[str, tuple[Any, Any]] = {}
        self._ending = asyncio.Event()
        self._poller: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        clients = len({one for subscribers in self._subscribers.values() for one in subscribers})
        return (
            f"<LiveStreams [{clients} clients on {len(self._subscribers)} aggregates | {self._listener!r}]>"
        )

    async def start(self) -> None:
        """Begin to listen for notifications; PostgreSQL may still be unreachable."""
        await self._listener.start()
        self._poller = asyncio.create_task(self._poll(), name="live-streams-poll")

    def end(self) -> None:
        """Let all streams end soon; their clients reconnect, to another process if this process stops."""
        self._ending.set()
        self._on_keys(frozenset())

    async def stop(self) -> None:
        """End all streams and stop listening."""
        self.end()
        if self._poller is not None:
            self._poller.cancel()
            await asyncio.gather(self._poller, return_exceptions=True)
        await self._listener.stop()

    async def follow(
        self,
        aggregate_type: str,
        aggregate_id: UUID,
        *,
        after_version: int,
        current_version: int,
        event_filter: EventFilter = _show_all,
        event_types: EventTypes | None = None,
        woken_by: Sequence[UUID] = (),
    ) -> AsyncGenerator[ServerSentEvent]:
        """Yield the recorded events after *after_version*, then new events, until the stream ends.

        The stream also yields ``task.progress`` when the status or progress of an open task of the aggregate
        has changed, and a comment after 15 s without a change. It ends after 24 to 30 minutes, after a
        database error, after :meth:`end`, or if *event_filter* ends it. Two more cases end it:

        * *after_version* is higher than *current_version*, because a restore or failover of PostgreSQL has
          lost events, or because the client's cursor was malformed (:func:`relaybox.http.stream_cursor`).
          The stream yields ``reset``, after which the client must read the state of the aggregate.
        * The payload of the next event cannot be converted to the declared version. The client reconnects,
          and may reach a process of a later release that can convert the payload.

        Args:
            aggregate_type: Type of the aggregate.
            aggregate_id: The aggregate whose events are sent.
            after_version: The client's cursor: the version of the last event that the client has.
            current_version: Version of the aggregate now.
            event_filter: Filters each page, and decides whether the stream continues. By default all events
                are sent.
            event_types: The versions to which payloads are converted; None sends payloads as recorded.
            woken_by: Ids of other aggregates. The stream calls *event_filter* at once after a change of one
                of them, and every 15 s without a change.
        """
        yield ServerSentEvent(retry_ms=1_000 + random.randrange(1_000))  # noqa: S311 - jitter
        if after_version > current_version:
            yield ServerSentEvent(type="reset", data=to_json({"version": current_version}))
            return
        keys = frozenset(map(str, (aggregate_id, *woken_by)))
        subscriber = _Subscriber(
            aggregate_type, str(aggregate_id), keys, event_filter, event_types or EventTypes()
        )
        # Registered before the events are read, so that no change is missed in between.
        for key in keys:
            self._subscribers.setdefault(key, set()).add(subscriber)
        try:
            async for one in self._stream(subscriber, _StreamPosition(version=after_version)):
                yield one
        finally:
            self._leave(subscriber)

    async def _stream(
        self, subscriber: _Subscriber, position: _StreamPosition
    ) -> AsyncGenerator[ServerSentEvent]:
        ends_at = asyncio.get_running_loop().time() + _AGE_S_MAX * random.uniform(0.8, 1)  # noqa: S311 - jitter
        while not self._ending.is_set() and asyncio.get_running_loop().time() < ends_at:
            subscriber.news.clear()
            try:
                page = await self._read(subscriber, position)
            except DatabaseError as error:
                _log.warning("live stream ended after a database error", error_code=error.error_code)
                return
            for one in page:
                yield one
            if position.ends:
                return
            if not page and not await _wait_for_news(subscriber.news, _PING_S):
                yield ServerSentEvent()

    async def _read(self, subscriber: _Subscriber, position: _StreamPosition) -> list[ServerSentEvent]:
        async with self._database.connection() as connection:
            events = await fetch_stream(
                connection,
                subscriber.aggregate_type,
                subscriber.aggregate_id,
                after_version=position.version,
                limit=_PAGE_EVENTS,
            )
            tasks = await connection.fetch(_SQL["open_tasks"], UUID(subscriber.aggregate_id))
        # The filter is called after the page was read. So if the filter finds that the client may read now,
        # no event of the page was recorded after the client lost the right to read.
        readable = _readable(events, subscriber.event_types)
        visible = await subscriber.event_filter(readable)
        page = [_event(event) for event in visible.events]
        position.version = readable[-1].version if readable else position.version
        position.ends = visible.ends or len(readable) < len(events)
        if position.ends:
            return page
        seen = {row["id"]: (row["status"], row["progress"]) for row in tasks}
        page += [_progress(row) for row in tasks if position.tasks.get(row["id"]) != seen[row["id"]]]
        position.tasks = seen
        return page

    def _leave(self, subscriber: _Subscriber) -> None:
        for key in subscriber.keys:
            rest = self._subscribers[key]
            rest.discard(subscriber)
            if not rest:
                del self._subscribers[key]
                self._positions.pop(key, None)

    def _on_keys(self, keys: frozenset[str]) -> None:
        for key in keys or self._subscribers:
            for subscriber in self._subscribers.get(key, ()):
                subscriber.news.set()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            if not self._subscribers:
                continue
            types = [next(iter(subscribers)).aggregate_type for subscribers in self._subscribers.values()]
            ids = list(self._subscribers)
            try:
                async with self._database.connection() as connection:
                    rows = await connection.fetch(_SQL["positions"], types, ids)
            except DatabaseError as error:
                _log.warning("poll for live streams failed; trying again", error_code=error.error_code)
                continue
            except Exception as error:  # noqa: BLE001 - without the poll, lost notifications are never found
                _log.error("poll for live streams failed; trying again", traceback=traceback_of(error))
                continue
            now = {row["id"]: (row["version"], row["worked_at"]) for row in rows}
            moved = frozenset(key for key, position in now.items() if self._positions.get(key) != position)
            self._positions = now
            if moved:
                self._on_keys(moved)


def _readable(events: Sequence[RecordedEvent], event_types: EventTypes) -> list[RecordedEvent]:
    """Return the events before the first unreadable event, with payloads of the declared versions."""
    readable: list[RecordedEvent] = []
    for event in events:
        try:
            readable.append(event_types.upcast_recorded(event))
        except EventUnreadable as error:
            _log.warning(
                "live stream ended before an event that this release cannot read",
                error_code=error.error_code,
                reason=str(error),
            )
            break
    return readable


def _event(event: RecordedEvent) -> ServerSentEvent:
    data = {
        "event_id": event.event_id,
        "event_type": event.type,
        "version": event.version,
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "payload": event.payload,
        "created_at": event.created_at,
    }
    return ServerSentEvent(id=event.version, type=event.type, data=to_json(data))


def _progress(row: Any) -> ServerSentEvent:
    data = {
        "task_id": row["id"],
        "task_type": row["task_type"],
        "status": row["status"],
        "progress": float(row["progress"]),
    }
    return ServerSentEvent(type="task.progress", data=to_json(data))


async def _wait_for_news(news: asyncio.Event, limit_s: float) -> bool:
    try:
        await asyncio.wait_for(news.wait(), limit_s)
    except TimeoutError:
        return False
    return True
