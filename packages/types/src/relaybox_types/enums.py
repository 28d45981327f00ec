"""The backbone's enumerations; each is a PostgreSQL enum type of the same labels."""

from enum import StrEnum

__all__ = ("CommandStatus", "HandleStatus", "OutboxStatus", "TaskStatus")


class CommandStatus(StrEnum):
    """Life of a command (PostgreSQL ``command_status``)."""

    RECEIVED = "RECEIVED"  # taken; an asynchronous command waits for its agent
    PROCESSING = "PROCESSING"  # an agent works on it
    COMPLETED = "COMPLETED"  # its effect, or the agent's result, is recorded
    FAILED = "FAILED"  # the agent gave up, or the aggregate was abandoned


class TaskStatus(StrEnum):
    """Life of a piece of work that outlives its request (PostgreSQL ``task_status``)."""

    PENDING = "PENDING"  # waits for a worker
    RUNNING = "RUNNING"  # a worker holds its lease
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"  # its command was withdrawn; a late result is refused


class OutboxStatus(StrEnum):
    """Life of an event on its way to Kafka (PostgreSQL ``outbox_status``)."""

    PENDING = "PENDING"  # committed, not acknowledged by the broker
    SENT = "SENT"  # acknowledged by the broker
    FAILED = "FAILED"  # given up after its retries; later rows of its key wait for an operator


class HandleStatus(StrEnum):
    """Life of a paused flow (PostgreSQL ``handle_status``)."""

    PENDING_PAUSE = "PENDING_PAUSE"
    PAUSED = "PAUSED"
    RESUMED = "RESUMED"
    EXPIRED = "EXPIRED"
