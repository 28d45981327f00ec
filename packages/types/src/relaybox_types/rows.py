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
    """A fact. Append-only: the database refuses every change but the erasure of its content (G07)."""

    #: Insertion order. Not commit order, so never a cursor (G22).
    id: int
    event_id: UUID
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    event_type: str
    event_version: int = 1
    aggregate_type: str
    aggregate_id: str
    #: Gapless per aggregate: the cursor of an aggregate's stream.
    aggregate_version: int
    payload: Document | None = None
    metadata: Document | None = None
    created_at: AwareDatetime


class CommandInbox(Row):
    """A command that was taken; at most one pending per session and type."""

    id: UUID
    session_id: UUID
    command_type: str
    idempotency_key: str | None = None
    payload: Document | None = None
    status: CommandStatus = CommandStatus.RECEIVED
    #: Why it failed: ``error_code`` and ``message``; null unless FAILED.
    error_data: Document | None = None
    created_at: AwareDatetime


class AsyncTask(Row):
    """Work that outlives its request. Its worker holds a lease; an expired one is taken over (G06)."""

    id: UUID
    task_type: str
    triggered_by_command_id: UUID | None = None
    #: The aggregate it works for; its live stream shows the progress.
    aggregate_id: UUID | None = None
    status: TaskStatus = TaskStatus.PENDING
    #: Percent, never goes back.
    progress: Progress = Decimal(0)
    input_data: Document | None = None
    result_data: Document | None = None
    error_data: Document | None = None
    #: Rises with every worker that takes it; one that is stopped in good order takes its own back.
    attempts: int = 0
    #: Until when its worker may be silent; null unless RUNNING.
    lease_until: AwareDatetime | None = None
    #: The present worker's fencing token; writes that carry another one are refused.
    lease_token: UUID | None = None
    #: Whom it is for; the open tasks of one key do not hold up those of another.
    fairness_key: str | None = None
    #: Open tasks are claimed in this order; null: by ``created_at``.
    claim_order_at: AwareDatetime | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class EventOutbox(Row):
    """An event on its way to Kafka; ``payload`` is the message's value."""

    id: UUID
    #: Order within a key, because the aggregate's commands serialise; not commit order across keys.
    seq: int
    topic: str
    key: str | None = None
    #: Where the key falls among the relays' lanes; computed by the database.
    key_hash: int
    payload: Document
    status: OutboxStatus = OutboxStatus.PENDING
    #: Publications that failed through the row's own fault.
    attempts: int = 0
    #: Not before this time again; null until an attempt failed.
    next_attempt_at: AwareDatetime | None = None
    #: ``reason`` (row or link), ``class``, ``message``, ``attempts``, ``at`` of the last failure.
    error_data: Document | None = None
    created_at: AwareDatetime
    sent_at: AwareDatetime | None = None
    #: When an operator decided that this FAILED row is never published.
    skipped_at: AwareDatetime | None = None
    #: The partition it lies in, which changes when retention moves a row that is not SENT out of an old one.
    slot: int = 0


class FlowResumeHandle(Row):
    """A paused flow and what resumes it; at most one waiting per correlation."""

    id: UUID
    correlation_id: str
    resume_handle: Document
    status: HandleStatus = HandleStatus.PENDING_PAUSE
    resume_payload: Document | None = None
    expires_at: AwareDatetime | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class IdempotencyCache(Row):
    """A stored answer; ``key`` is a keyed hash of principal and key, never the key itself."""

    key: str
    result: Document
    created_at: AwareDatetime
    expires_at: AwareDatetime
