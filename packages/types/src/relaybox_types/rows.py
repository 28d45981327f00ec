"""Define a model for each table of the library, with one field per column.

A test compares each model with its table in a migrated PostgreSQL: name, type, nullability,
default and enum labels. A field is required if its column is NOT NULL without a constant default.
"""

from decimal import Decimal
from typing import Annotated, Any
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from relaybox_types.enums import (
    CommandStatus,
    DeadLetterReason,
    DeadLetterStatus,
    HandleStatus,
    OutboxStatus,
    TaskStatus,
)

__all__ = (
    "AsyncTask",
    "CommandInbox",
    "DeadLetter",
    "DomainEvent",
    "EventOutbox",
    "FlowResumeHandle",
    "IdempotencyCache",
    "Row",
)

Document = dict[str, Any]
Progress = Annotated[Decimal, Field(ge=0, le=100, max_digits=5, decimal_places=2)]


class Row(BaseModel):
    """Base of all models of rows; ``model_validate`` also accepts objects with columns as attributes."""

    model_config = ConfigDict(frozen=True, from_attributes=True, hide_input_in_errors=True)


class DomainEvent(Row):
    """A recorded event. PostgreSQL refuses all changes of recorded events except erasure of content (G07)."""

    #: Assigned at insertion and not at COMMIT. A reader that continues after the highest id would miss events
    #: of transactions that commit later (G22).
    id: int
    event_id: UUID
    correlation_id: UUID | None = None
    causation_id: UUID | None = None
    event_type: str
    event_version: int = 1
    aggregate_type: str
    aggregate_id: str
    #: Version of the aggregate after this event, without gaps: the position in the aggregate's event stream.
    aggregate_version: int
    payload: Document | None = None
    metadata: Document | None = None
    created_at: AwareDatetime


class CommandInbox(Row):
    """A recorded command; at most one is pending per aggregate and command type."""

    id: UUID
    #: Id of the aggregate.
    session_id: UUID
    command_type: str
    idempotency_key: str | None = None
    payload: Document | None = None
    status: CommandStatus = CommandStatus.RECEIVED
    #: ``error_code`` and ``message`` of the failure; null unless FAILED.
    error_data: Document | None = None
    created_at: AwareDatetime


class AsyncTask(Row):
    """A task: work that takes longer than a request, done by a worker that holds a lease (G06)."""

    id: UUID
    task_type: str
    triggered_by_command_id: UUID | None = None
    #: The aggregate that the task works on; its event stream shows the progress.
    aggregate_id: UUID | None = None
    status: TaskStatus = TaskStatus.PENDING
    #: Percent; never decreases.
    progress: Progress = Decimal(0)
    input_data: Document | None = None
    result_data: Document | None = None
    error_data: Document | None = None
    #: Number of claims, without claims that ended because the worker's process was stopped. When a flow is
    #: suspended, the count begins again at 0.
    attempts: int = 0
    #: End of the worker's lease, after which another worker may claim the task; null unless RUNNING.
    lease_until: AwareDatetime | None = None
    #: The fencing token of the worker that holds the task; writes with another token are refused.
    lease_token: UUID | None = None
    #: For example a user's id: many open tasks of one key hardly delay tasks of other keys.
    fairness_key: str | None = None
    #: Open tasks are claimed in this order; null means ``created_at``.
    claim_order_at: AwareDatetime | None = None
    #: A PENDING task is not claimed before this time; None: at once.
    not_before: AwareDatetime | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime


class EventOutbox(Row):
    """An event to publish to Kafka; ``payload`` is the message's value.

    A payload with ``record`` and without ``event_type`` contains the bytes of a message that is not an event
    of this database, such as a dead letter.
    """

    id: UUID
    #: Order of the rows with one key, in which they are published. It has no meaning for rows of different
    #: keys.
    seq: int
    topic: str
    key: str | None = None
    #: Hash of the key, computed by PostgreSQL; determines the lane.
    key_hash: int
    payload: Document
    status: OutboxStatus = OutboxStatus.PENDING
    #: Number of failed attempts to publish. Attempts that fail because no broker responds count too; when a
    #: broker responds again, the number becomes 0. Waiting for an unavailable partition does not count.
    attempts: int = 0
    #: The earliest time of the next attempt; null until an attempt has failed.
    next_attempt_at: AwareDatetime | None = None
    #: ``reason``, ``class``, ``message``, ``attempts``, ``at`` of the last failure. The reason is ``row`` if
    #: the row caused the failure, ``link`` if no broker responded or the partition was unavailable.
    error_data: Document | None = None
    created_at: AwareDatetime
    sent_at: AwareDatetime | None = None
    #: When an operator decided never to publish this FAILED row.
    skipped_at: AwareDatetime | None = None
    #: Number of the table's partition with the row. Retention moves rows that are not SENT to a newer
    #: partition and truncates the old one.
    slot: int = 0


class DeadLetter(Row):
    """A message that a consumer group could not process, or that waits behind such a message of its key."""

    id: int
    consumer_group: str
    topic: str
    partition: int
    message_offset: int
    message_key: bytes | None = None
    #: SHA-256 of the key; indexes have it instead of the key, because a key may be longer than their limit.
    key_hash: bytes | None = None
    #: None, with the next three fields, if the message is not an event.
    event_id: UUID | None = None
    event_type: str | None = None
    aggregate_type: str | None = None
    aggregate_id: str | None = None
    #: Pairs of name and value; a value that is not text is ``{"base64": …}``.
    headers: list[Any]
    value: bytes | None = None
    reason: DeadLetterReason
    error_code: str
    error: str
    #: Attempts of the handler, those of replays included.
    attempts: int
    #: Whether later messages of the key wait until the letter is replayed or discarded.
    holds_key: bool
    status: DeadLetterStatus = DeadLetterStatus.PARKED
    parked_at: AwareDatetime
    resolved_at: AwareDatetime | None = None
    #: The operator named by the replay request or the discard, and the operator's reason.
    resolved_by: str | None = None
    resolved_reason: str | None = None


class FlowResumeHandle(Row):
    """One pause of a flow, and the data to resume the flow (G44).

    At most one pause per correlation id is PENDING_PAUSE or PAUSED.
    """

    id: UUID
    correlation_id: str
    resume_handle: Document
    status: HandleStatus = HandleStatus.PENDING_PAUSE
    resume_payload: Document | None = None
    expires_at: AwareDatetime | None = None
    #: Number of the pause among those of its correlation id.
    generation: int = 1
    #: False for a resume that arrived before its pause was requested.
    registered: bool = True
    #: Whether an EXPIRED handle was cancelled.
    cancelled: bool = False
    #: Chain of the handle's events; None: derived from the correlation id.
    chain_id: UUID | None = None
    #: Number of events of this handle.
    version: int = 1
    created_at: AwareDatetime
    updated_at: AwareDatetime


class IdempotencyCache(Row):
    """A stored response; ``key`` is a keyed hash of principal and client's key, not the client's key."""

    key: str
    result: Document
    created_at: AwareDatetime
    expires_at: AwareDatetime
