"""Actions of operators on flows.

One transaction changes the flow and records the action in ``operator_acts``.
"""

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy.ext.asyncio import AsyncSession

from relaybox import flows
from relaybox.db import Database, Executor, executor_of, load_queries
from relaybox.flows import FlowCancellation, Handle, resume
from relaybox.operations._errors import FlowAwaitsEvent, SelectionEmpty
from relaybox.operations._flows import FlowSummary, Pause, show_flow, show_pause

__all__ = (
    "cancel_and_record",
    "cancel_flow",
    "preview_flow_cancellation",
    "preview_resume",
    "record_act",
    "resume_flow",
)

_SQL: Final = load_queries(__package__ or "relaybox.operations", "flows.sql")


async def preview_resume(db: Executor, correlation_id: str) -> Pause | None:
    """Return the pause that :func:`resume_flow` would resume; change nothing.

    Returns:
        The pause; None if no pause with this correlation id was ever requested. A resume is then kept for 24
        hours, and ends a pause that is requested in this time.

    Raises:
        SelectionEmpty: The last pause of the correlation id has ended, or has a resume already.
        FlowAwaitsEvent: The pause waits for an event, which a resume cannot replace.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    pause = await show_pause(db, correlation_id)
    if pause is None:
        return None
    if not pause.can_be_resumed:
        state = "CANCELLED" if pause.cancelled else pause.status
        kept = " and has a resume already" if state == "PENDING_PAUSE" else ""
        raise SelectionEmpty(
            f"nothing to resume: the last pause of {correlation_id!r} is {state}{kept}; "
            "`relaybox flow list` shows the waiting pauses"
        )
    if pause.event_type is not None:
        raise FlowAwaitsEvent(correlation_id, pause.event_type, str(pause.key))
    return pause


async def resume_flow(
    database: Database, correlation_id: str, payload: Mapping[str, Any], *, by: str, reason: str | None = None
) -> Handle:
    """Resume a paused flow of any engine for an operator; the payload is not recorded with the action.

    Args:
        database: The database; the call takes one transaction.
        correlation_id: Correlation id of the pause.
        payload: A JSON object of at most 64 KiB, which the flow gets.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Returns:
        The handle of the pause. Its status is PENDING_PAUSE if the flow has not paused yet: the resume is
        then kept until the pause is confirmed, see :func:`relaybox.flows.resume`.

    Raises:
        FlowAwaitsEvent: The pause waits for an event, which a resume cannot replace.
        FlowAlreadyResumed: The last pause of the correlation id was resumed, or has a resume that is kept.
        FlowExpired, FlowCancelled: The last pause of the correlation id has ended.
        FlowDocumentInvalid: *payload* or *correlation_id* is too long or cannot be stored.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """

    async def work(db: AsyncSession) -> Handle:
        pause = await show_pause(executor_of(db), correlation_id)
        if pause is not None and pause.can_be_resumed and pause.event_type is not None:
            raise FlowAwaitsEvent(correlation_id, pause.event_type, str(pause.key))
        handle = await resume(db, correlation_id, payload)
        await record_act(db, by, "resume", reason, {"correlation_id": correlation_id, **_task_of(handle)})
        return handle

    return await database.run_in_transaction(work)


async def preview_flow_cancellation(db: Executor, flow_id: UUID) -> FlowSummary:
    """Return the flow that :func:`cancel_flow` would cancel; change nothing.

    Raises:
        SelectionEmpty: There is no such flow, or it has ended.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """
    found = (await show_flow(db, flow_id)).flow
    if found.status not in ("PENDING", "RUNNING"):
        raise SelectionEmpty(
            f"flow {flow_id} is {found.status}; only a PENDING or RUNNING flow can be cancelled; "
            "`relaybox flow list` shows these flows"
        )
    return found


async def cancel_flow(database: Database, flow_id: UUID, *, by: str, reason: str) -> FlowCancellation:
    """Cancel a flow and the pause for which it waits, in one transaction.

    A step that runs at this moment is rolled back. Steps that are done keep their effects. The command for
    which the flow was started fails with ``FLOW_CANCELLED``.

    Args:
        database: The database.
        flow_id: Id of the flow.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.

    Returns:
        The result of :func:`relaybox.flows.cancel_flow`.

    Raises:
        SelectionEmpty: There is no such flow, or it has ended.
        DatabaseError: PostgreSQL is unreachable or too busy.
    """

    async def work(db: AsyncSession) -> FlowCancellation:
        await preview_flow_cancellation(executor_of(db), flow_id)
        return await cancel_and_record(db, flow_id, by=by, reason=reason)

    return await database.run_in_transaction(work)


async def cancel_and_record(db: AsyncSession, task_id: UUID, *, by: str, reason: str) -> FlowCancellation:
    """Cancel a task, and record the action of operator *by*, in the caller's transaction.

    Args:
        db: Session of the caller's transaction, which has read that the task is PENDING or RUNNING.
        task_id: Id of the task; the task may be a flow.
        by: Name of the operator, for the record of the action.
        reason: Reason, for the record of the action.
    """
    done = await flows.cancel_flow(db, task_id)
    assert done is not None  # this transaction has seen the open task
    pause = {} if done.correlation_id is None else {"correlation_id": done.correlation_id}
    await record_act(db, by, "cancel", reason, {"tasks": [str(task_id)], **pause})
    return done


async def record_act(
    db: AsyncSession, by: str, act: str, reason: str | None, target: Mapping[str, Any]
) -> None:
    """Record an action of an operator in ``operator_acts``, in the caller's transaction.

    Args:
        db: Session of the caller's transaction.
        by: Name of the operator.
        act: Name of the action, such as ``resume``.
        reason: Reason of the operator; None if there is none.
        target: The changed objects, as a JSON object.
    """
    await executor_of(db).fetch(_SQL["record_act"], by, act, reason, to_json(target).decode())


def _task_of(handle: Handle) -> dict[str, list[str]]:
    task_id = handle.resume_handle.get("task_id")
    return {} if task_id is None else {"tasks": [str(task_id)]}
