"""The backbone's enumerations; each is a PostgreSQL enum type of the same labels."""

from enum import StrEnum

__all__ = ("CommandStatus", "HandleStatus", "OutboxStatus", "TaskStatus")


class CommandStatus(StrEnum):
    """Life of a command (PostgreSQL ``command_status``)."""

    RECEIVED = "RECEIVED"  # recorded; an asynchronous command waits for its agent
    PROCESSING = "PROCESSING"  # an agent works on the command
    COMPLETED = "COMPLETED"  # the effect of the command, or the agent's result, is recorded
    FAILED = "FAILED"  # the agent failed, or the aggregate was abandoned


class TaskStatus(StrEnum):
    """Life of work that continues after its request has ended (PostgreSQL ``task_status``)."""

    PENDING = "PENDING"  # waits for a worker
    RUNNING = "RUNNING"  # a worker has a lease on the task
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"  # the command was withdrawn; a late result is refused


class OutboxStatus(StrEnum):
    """Life of an event on its way to Kafka (PostgreSQL ``outbox_status``)."""

    PENDING = "PENDING"  # committed, not acknowledged by the broker
    SENT = "SENT"  # acknowledged by the broker
    FAILED = "FAILED"  # not published after all retries; later rows of the same key are blocked


class HandleStatus(StrEnum):
    """Life of a paused flow (PostgreSQL ``handle_status``)."""

    PENDING_PAUSE = "PENDING_PAUSE"
    PAUSED = "PAUSED"
    RESUMED = "RESUMED"
    EXPIRED = "EXPIRED"
