"""Pause, resume, cancel and expire flows; each transition records its event in the caller's transaction.

States of a handle (``flow_resume_handles.status``), with the event that each transition records::

    (none) ── pause: PauseRequested ──► PENDING_PAUSE ── confirm_paused: Paused ──► PAUSED
                                          │  │                                       │  │
              resume: ResumeReceived ─────┘  │                      resume: Resumed ─┘  │
              (payload kept; the next        │                            ▼             │
              confirm_paused records         │                         RESUMED          │
              Resumed instead of Paused)     │                                          │
                                             └──── expire, cancel: Expired, Cancelled ──┴──► EXPIRED

If no pause was ever requested with the correlation id of a resume, the resume is kept too, for 24 hours: in a
PENDING_PAUSE handle that is not ``registered``. The next pause with this id gets the resume (G44).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Self
from uuid import UUID, uuid5

from pydantic_core import from_json
from relaybox_types.enums import HandleStatus
from relaybox_types.envelope import EventEnvelope, build_event_envelope
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox.commands import append_events
from relaybox.db import (
    Executor,
    RetryTransaction,
    constraint_of,
    executor_of,
    load_queries,
    map_database_errors,
)
from relaybox.events import EVENT_ID_NAMESPACE, EventType
from relaybox.flows._errors import (
    FlowAlreadyPaused,
    FlowAlreadyResumed,
    FlowCancelled,
    FlowDocumentInvalid,
    FlowError,
    FlowExpired,
    FlowUnknown,
)
from relaybox.flows._json import check_text, check_wait, json_of
from relaybox.tasks import announce_tasks, wake_tasks

__all__ = (
    "AGGREGATE_TYPE",
    "CANCELLED",
    "EXPIRED",
    "PAUSED",
    "PAUSE_REQUESTED",
    "RESUMED",
    "RESUME_RECEIVED",
    "Handle",
    "cancel",
    "chain_of",
    "confirm_paused",
    "expire_handles",
    "expire_one",
    "fetch_handle",
    "lock_handle",
    "pause",
    "record_resumes",
    "resume",
)

_SQL: Final = load_queries(__package__ or "relaybox.flows", "flows.sql")
_RETURNING_A_HANDLE: Final = {
    name: _SQL.including(name, handle=_SQL["handle"])
    for name in ("pause", "confirm", "resume", "cancel", "expire", "expire_one", "fetch")
}
#: Aggregate type of the events of handles; the id of the aggregate is the id of the handle.
AGGREGATE_TYPE: Final = "Flow"
#: A flow is about to be suspended.
PAUSE_REQUESTED: Final = EventType("Relaybox.Flow.PauseRequested")
#: A flow is suspended.
PAUSED: Final = EventType("Relaybox.Flow.Paused")
#: A resume arrived before its flow was suspended, and is kept.
RESUME_RECEIVED: Final = EventType("Relaybox.Flow.ResumeReceived")
#: A flow was resumed; the payload has ``resume_handle`` and ``resume_payload``.
RESUMED: Final = EventType("Relaybox.Flow.Resumed")
#: The time of a pause was over.
EXPIRED: Final = EventType("Relaybox.Flow.Expired")
#: A pause was cancelled.
CANCELLED: Final = EventType("Relaybox.Flow.Cancelled")
#: Limits of the documents, in bytes of JSON, and of a correlation id, in characters.
_HANDLE_BYTES_MAX: Final = 16_384
_PAYLOAD_BYTES_MAX: Final = 65_536
_CORRELATION_CHARACTERS_MAX: Final = 200
#: How long a resume without a requested pause is kept.
_KEPT: Final = timedelta(hours=24)
_GENERATION: Final = "idx_flow_resume_handles_generation"


@dataclass(frozen=True, kw_only=True, slots=True)
class Handle:
    """One pause of a flow: a row of ``flow_resume_handles``."""

    id: UUID
    correlation_id: str
    status: HandleStatus
    #: What the flow's engine needs to resume the flow, as given to :func:`pause`.
    resume_handle: dict[str, Any] = field(repr=False)
    #: The payload of the resume; None if no resume has arrived yet.
    resume_payload: dict[str, Any] | None = field(repr=False)
    expires_at: datetime
    #: False for a resume that is kept for a pause which was not requested yet.
    registered: bool
    #: Whether an EXPIRED handle was cancelled.
    cancelled: bool
    #: Number of events of this handle.
    version: int
    #: Chain to which the events of this handle belong.
    chain_id: UUID

    @property
    def resume_is_kept(self) -> bool:
        """Whether a resume has arrived already; the flow gets its payload when the pause is confirmed."""
        return self.status is HandleStatus.PENDING_PAUSE and self.resume_payload is not None

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Self:
        """Return the handle in *row*, a result of a query of ``flows.sql``."""
        payload = row["resume_payload"]
        return cls(
            id=row["id"],
            correlation_id=row["correlation_id"],
            status=HandleStatus(row["status"]),
            resume_handle=from_json(row["resume_handle"]),
            resume_payload=None if payload is None else from_json(payload),
            expires_at=row["expires_at"],
            registered=row["registered"],
            cancelled=row["cancelled"],
            version=row["version"],
            chain_id=row["chain_id"] or chain_of(row["correlation_id"]),
        )


async def pause(
    db: AsyncSession,
    correlation_id: str,
    *,
    resume_handle: Mapping[str, Any],
    expires_in: timedelta,
    chain_id: UUID | None = None,
) -> Handle:
    """Request a pause; call this before the engine suspends the flow, and :func:`confirm_paused` afterwards.

    Args:
        db: Session of the caller's transaction.
        correlation_id: Identifies the pause to :func:`resume`, 1 to 200 characters. A flow that pauses
            several times needs an id for each pause, such as ``{flow}/approval``, so that an early resume
            reaches the pause that it is meant for.
        resume_handle: What the engine needs to resume the flow, a JSON object of at most 16 KiB. If it has a
            member ``task_id``, the id of a suspended task, the end of the pause wakes this task.
        expires_in: The pause ends by itself after this time, counted from this call.
        chain_id: Chain to which the events belong; None: see :func:`chain_of`.

    Returns:
        The handle. If ``resume_is_kept`` is true, a resume has arrived already: do not suspend the flow.

    Raises:
        FlowAlreadyPaused: A pause of this correlation id waits.
        FlowDocumentInvalid: *resume_handle* or *correlation_id* is too long or cannot be stored, or the
            ``task_id`` is not a UUID.
        FlowInvalid: *expires_in* is longer than 100 years.
        RetryTransaction: Another transaction changed the handle: repeat the whole transaction.
        ValueError: *expires_in* is not positive.
    """
    if expires_in <= timedelta():
        raise ValueError(f"expires_in must be positive, not {expires_in}")
    check_wait("expires_in", expires_in)
    _check_task_id(resume_handle)
    document = json_of("resume_handle", resume_handle, _HANDLE_BYTES_MAX)
    arguments = (correlation_id, document, expires_in.total_seconds(), chain_id)
    handle = await _transition(db, "pause", *arguments)
    if handle is None:
        # An earlier pause waits, perhaps only because nothing has expired it yet.
        if await expire_one(db, correlation_id) is None:
            raise FlowAlreadyPaused(correlation_id)
        handle = await _transition(db, "pause", *arguments)
    if handle is None:
        raise _conflict(correlation_id)
    await _record(db, [handle], PAUSE_REQUESTED)
    return handle


async def confirm_paused(db: AsyncSession, correlation_id: str) -> Handle:
    """Confirm that the flow is suspended; a repeated call for a paused flow changes nothing.

    Args:
        db: Session of the caller's transaction.
        correlation_id: As given to :func:`pause`.

    Returns:
        The handle. If its status is RESUMED, a resume had arrived before: resume the flow with its payload.

    Raises:
        FlowUnknown: No pause was requested.
        FlowAlreadyResumed, FlowExpired, FlowCancelled: The pause has ended.
        RetryTransaction: Another transaction changed the handle: repeat the whole transaction.
    """
    handle = await _transition(db, "confirm", correlation_id)
    if handle is not None:
        await _record(db, [handle], RESUMED if handle.status is HandleStatus.RESUMED else PAUSED)
        return handle
    last = await _last_registered(db, correlation_id)
    if last.status is HandleStatus.PAUSED:
        return last
    raise _obstacle(last)


async def resume(db: AsyncSession, correlation_id: str, payload: Mapping[str, Any]) -> Handle:
    """Resume a paused flow with *payload*, or keep the resume for a pause that is not confirmed yet (G44).

    Of concurrent resumes, cancellations and expiries of a pause, the one that commits first takes effect.

    Args:
        db: Session of the caller's transaction.
        correlation_id: As given to :func:`pause`.
        payload: A JSON object of at most 64 KiB.

    Returns:
        The handle; RESUMED, or PENDING_PAUSE if the resume is kept. A resume whose pause was never requested
        is kept for 24 hours.

    Raises:
        FlowAlreadyResumed, FlowExpired, FlowCancelled: The last pause has ended, or a resume is kept for it.
        FlowDocumentInvalid: *payload* or *correlation_id* is too long or cannot be stored.
        RetryTransaction: Another transaction changed the handle: repeat the whole transaction.
    """
    document = json_of("payload", payload, _PAYLOAD_BYTES_MAX)
    handle = await _transition(db, "resume", correlation_id, document, _KEPT.total_seconds())
    if handle is None:
        last = await fetch_handle(executor_of(db), correlation_id)
        raise _conflict(correlation_id) if last is None else _obstacle(last)
    await _record(db, [handle], RESUMED if handle.status is HandleStatus.RESUMED else RESUME_RECEIVED)
    return handle


async def record_resumes(db: AsyncSession, rows: Sequence[Mapping[str, Any]]) -> None:
    """Record the resume of each handle in *rows*; the statement that returned the rows has resumed them."""
    await _record(db, [Handle.from_row(row) for row in rows], RESUMED)


async def cancel(db: AsyncSession, correlation_id: str) -> Handle:
    """Cancel a requested or confirmed pause; return its handle: status EXPIRED, ``cancelled`` true.

    Raises:
        FlowUnknown: No pause was requested.
        FlowAlreadyResumed, FlowExpired, FlowCancelled: The pause has ended.
        RetryTransaction: Another transaction changed the handle: repeat the whole transaction.
    """
    handle = await _transition(db, "cancel", correlation_id)
    if handle is None:
        raise _obstacle(await _last_registered(db, correlation_id))
    await _record(db, [handle], CANCELLED)
    return handle


async def expire_handles(db: AsyncSession, *, handles_max: int = 100) -> list[Handle]:
    """Expire at most *handles_max* handles whose time is over, earliest first, and return them.

    Handles that other transactions are changing are skipped. Several processes may call this at once.
    """
    with map_database_errors():
        rows = await executor_of(db).fetch(_RETURNING_A_HANDLE["expire"], handles_max)
    handles = [Handle.from_row(row) for row in rows]
    await _record(db, handles, EXPIRED)
    return handles


async def expire_one(db: AsyncSession, correlation_id: str) -> Handle | None:
    """Expire and return the waiting handle of *correlation_id* if its time is over; otherwise return None."""
    handle = await _transition(db, "expire_one", correlation_id)
    if handle is not None:
        await _record(db, [handle], EXPIRED)
    return handle


async def lock_handle(db: AsyncSession, correlation_id: str) -> None:
    """Lock the last handle of *correlation_id* until the transaction ends, so that no transition happens."""
    with map_database_errors():
        await executor_of(db).fetch(_SQL["lock_handle"], correlation_id)


async def fetch_handle(executor: Executor, correlation_id: str) -> Handle | None:
    """Return the last handle of *correlation_id*, None if there is none.

    A waiting handle whose time is over is EXPIRED here, even before :func:`expire_handles` has recorded this.

    Raises:
        FlowDocumentInvalid: The correlation id is too long or cannot be stored.
    """
    _check_correlation_id(correlation_id)
    rows = await executor.fetch(_RETURNING_A_HANDLE["fetch"], correlation_id)
    return Handle.from_row(rows[0]) if rows else None


def chain_of(correlation_id: str) -> UUID:
    """Return the id of the chain to which the events of *correlation_id* belong if no other is given.

    This is the UUID before the first ``/``, or else a UUID derived from the whole text (RFC 9562, version 5).
    """
    try:
        return UUID(correlation_id.partition("/")[0])
    except ValueError:
        return uuid5(EVENT_ID_NAMESPACE, correlation_id)


def _check_correlation_id(text: str) -> None:
    check_text("a correlation id", text, _CORRELATION_CHARACTERS_MAX, error=FlowDocumentInvalid)


async def _transition(db: AsyncSession, query: str, correlation_id: str, *args: Any) -> Handle | None:
    _check_correlation_id(correlation_id)
    try:
        with map_database_errors():
            rows = await executor_of(db).fetch(_RETURNING_A_HANDLE[query], correlation_id, *args)
    except Exception as error:
        if constraint_of(error) == _GENERATION:
            raise _conflict(correlation_id) from error
        raise
    return Handle.from_row(rows[0]) if rows else None


def _check_task_id(resume_handle: Mapping[str, Any]) -> None:
    if "task_id" not in resume_handle:
        return
    try:
        UUID(str(resume_handle["task_id"]))
    except ValueError as error:
        raise FlowDocumentInvalid(
            f"task_id of a resume_handle is {resume_handle['task_id']!r:.80}, not the UUID of a task; "
            "give data of another engine another name"
        ) from error


async def _last_registered(db: AsyncSession, correlation_id: str) -> Handle:
    last = await fetch_handle(executor_of(db), correlation_id)
    if last is None or not last.registered:
        raise FlowUnknown(correlation_id)
    return last


def _obstacle(last: Handle) -> FlowError | RetryTransaction:
    """Return the error of a transition that *last*, the last handle of its correlation id, forbids."""
    if last.cancelled:
        return FlowCancelled(last.correlation_id)
    if last.status is HandleStatus.EXPIRED:
        return FlowExpired(last.correlation_id, last.expires_at)
    if last.resume_payload is not None:
        return FlowAlreadyResumed(last.correlation_id)
    return _conflict(last.correlation_id)


def _conflict(correlation_id: str) -> RetryTransaction:
    return RetryTransaction(
        f"another transaction changed the pause of {correlation_id!r}; repeat the whole transaction"
    )


async def _record(db: AsyncSession, handles: Sequence[Handle], event_type: EventType) -> None:
    """Record the event of a transition, and wake the tasks of handles that have ended."""
    if not handles:
        return
    await append_events(db, None, [_event(handle, event_type) for handle in handles])
    waiting = (HandleStatus.PENDING_PAUSE, HandleStatus.PAUSED)
    tasks = [
        UUID(task_id)
        for handle in handles
        if handle.status not in waiting and (task_id := handle.resume_handle.get("task_id")) is not None
    ]
    if tasks:
        # A separate statement: its snapshot has each suspension that committed before the handle was locked.
        with map_database_errors():
            announce_tasks(db, await wake_tasks(executor_of(db), tasks))


def _event(handle: Handle, event_type: EventType) -> EventEnvelope:
    payload: dict[str, Any] = {"correlation_id": handle.correlation_id}
    if event_type is RESUMED:
        payload |= {"resume_handle": handle.resume_handle, "resume_payload": handle.resume_payload}
    elif event_type in (EXPIRED, CANCELLED):
        payload |= {"resume_handle": handle.resume_handle}
    elif event_type is PAUSE_REQUESTED:
        payload |= {"expires_at": handle.expires_at.isoformat()}
    return build_event_envelope(
        event_type=event_type.name,
        event_version=event_type.version,
        aggregate_type=AGGREGATE_TYPE,
        aggregate_id=str(handle.id),
        version=handle.version,
        correlation_id=handle.chain_id,
        payload=payload,
    )
