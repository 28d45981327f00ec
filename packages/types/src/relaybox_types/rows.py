"""One model per table of the backbone, with one field per column.

A test compares each model with its table in a migrated PostgreSQL: name, type, nullability,
default and enum labels. A field without a default has no column default either.
"""

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from relaybox_types.enums import CommandStatus, HandleStatus, OutboxStatus, TaskStatus

__all__ = (
    "AsyncTask",
    "CommandInbox",
    "DomainEvent",
    "EventOutbox",
    "FlowResumeHandle",
    "IdempotencyCache",
    "Row",
)

Document = dict[str, Any]
Progress = Annotated[Decimal, Field(ge=0, le=100, max_digits=5, decimal_places=2)]


class Row(BaseModel):
    """Base of all row models: frozen, and readable from an object with the columns as attributes."""

    model_config = ConfigDict(frozen=True, from_attributes=True, hide_input_in_errors=True)


class DomainEvent(Row):
    """A recorded event. Append-only: the database refuses every change but the erasure of content (G07)."""

    #: In the order of insertion, not of commits; so never a cursor (G22).
    id: int
    event_id: UUID
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    event_type: str
    event_version: int = 1
    aggregate_type: str
    aggregate_id: str
    #: Without gaps per aggregate: the cursor of an aggregate's event stream.
    aggregate_version: int
    payload: Document | None = None
    metadata: Document | None = None
    created_at: AwareDatetime


class CommandInbox(Row):
    """A recorded command; at most one is pending per session and type."""

    id: UUID
    session_id: UUID
    command_type: str
    idempotency_key: str | None = None
    payload: Document | None = None
    status: CommandStatus = CommandStatus.RECEIVED
    #: ``error_code`` and ``message`` of the failure; null unless FAILED.
    error_data: Document | None = None
    created_at: AwareDatetime


class AsyncTask(Row):
    """Work that continues after its request. Its worker has a lease; an expired one is taken over (G06)."""

    id: UUID
    task_type: str
    triggered_by_command_id: UUID | None = None
    #: The aggregate of the task, whose event stream shows the progress.
    aggregate_id: UUID | None = None
    status: TaskStatus = TaskStatus.PENDING
    #: Percent; never decreases.
    progress: Progress = Decimal(0)
    input_data: Document | None = None
    result_data: Document | None = None
    error_data: Document | None = None
    #: Increased by every worker that claims the task, and decreased by a worker that stops in order.
    attempts: int = 0
    #: When the lease of the worker ends; null unless RUNNING.
    lease_until: AwareDatetime | None = None
    #: The fencing token of the present worker; writes with another token are refused.
    lease_token: UUID | None = None
    #: Groups tasks: many open tasks of one key do not delay the tasks of other keys.
    fairness_key: str | None = None
    #: Open tasks are claimed in this order; null means ``created_at``.
    claim_order_at: AwareDatetime | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class EventOutbox(Row):
    """An event on its way to Kafka; ``payload`` is the message's value."""

    id: UUID
    #: Gives the order within a key, because an aggregate's commands are serialised; not across keys.
    seq: int
    topic: str
    key: str | None = None
    #: Selects the lane of the key; computed by the database.
    key_hash: int
    payload: Document
    status: OutboxStatus = OutboxStatus.PENDING
    #: Failed attempts to publish that were caused by the row itself.
    attempts: int = 0
    #: The earliest time of the next attempt; null until an attempt has failed.
    next_attempt_at: AwareDatetime | None = None
    #: ``reason`` (row or link), ``class``, ``message``, ``attempts``, ``at`` of the last failure.
    error_data: Document | None = None
    created_at: AwareDatetime
    sent_at: AwareDatetime | None = None
    #: When an operator decided never to publish this FAILED row.
    skipped_at: AwareDatetime | None = None
    #: The partition of the row. Retention moves rows that are not SENT out of an old partition.
    slot: int = 0


class FlowResumeHandle(Row):
    """A paused flow with its resume handle; at most one waits per correlation id."""

    id: UUID
    correlation_id: str
    resume_handle: Document
    status: HandleStatus = HandleStatus.PENDING_PAUSE
    resume_payload: Document | None = None
    expires_at: AwareDatetime | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class IdempotencyCache(Row):
    """A stored response; ``key`` is a keyed hash of principal and key, never the key itself."""

    key: str
    result: Document
    created_at: AwareDatetime
    expires_at: AwareDatetime
