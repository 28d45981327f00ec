"""Define the enumerations of the tables; each has the labels of a PostgreSQL enum type."""

from enum import StrEnum

__all__ = (
    "CommandStatus",
    "DeadLetterReason",
    "DeadLetterStatus",
    "HandleStatus",
    "OutboxStatus",
    "TaskStatus",
)


class CommandStatus(StrEnum):
    """Status of a command (PostgreSQL ``command_status``)."""

    RECEIVED = "RECEIVED"  # recorded; an agent has to work on the command
    PROCESSING = "PROCESSING"  # an agent works on the command
    COMPLETED = "COMPLETED"  # the effect of the command, or the agent's result, is recorded
    FAILED = "FAILED"  # the agent failed, or the aggregate was abandoned


class TaskStatus(StrEnum):
    """Status of a task (PostgreSQL ``task_status``)."""

    PENDING = "PENDING"  # waits for a worker
    RUNNING = "RUNNING"  # a worker has a lease on the task, or the task pauses after a failed attempt
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"  # cancelled before its end; results that arrive later are refused


class OutboxStatus(StrEnum):
    """Status of a row of the outbox (PostgreSQL ``outbox_status``)."""

    PENDING = "PENDING"  # committed, not acknowledged by the broker
    SENT = "SENT"  # acknowledged by the broker
    FAILED = "FAILED"  # not published after all retries; later rows of the same key are blocked


class DeadLetterReason(StrEnum):
    """Why a consumer group parked a message (PostgreSQL ``dead_letter_reason``)."""

    HANDLER_FAILED = "HANDLER_FAILED"  # every attempt of the handler failed
    ENVELOPE_INVALID = "ENVELOPE_INVALID"  # no event, too large, or a version that the group does not know
    BLOCKED = "BLOCKED"  # an earlier message of its key is parked


class DeadLetterStatus(StrEnum):
    """Status of a dead letter (PostgreSQL ``dead_letter_status``)."""

    PARKED = "PARKED"  # waits for an operator, or behind an earlier letter of its key
    REPLAY_REQUESTED = "REPLAY_REQUESTED"  # a consumer of the group replays the letter
    REPLAYED = "REPLAYED"  # the handler's transaction has committed
    DISCARDED = "DISCARDED"  # an operator decided that the message is never processed


class HandleStatus(StrEnum):
    """Status of a pause of a flow (PostgreSQL ``handle_status``).

    See :class:`~relaybox_types.rows.FlowResumeHandle`.
    """

    PENDING_PAUSE = "PENDING_PAUSE"  # not confirmed yet; or a resume arrived before the pause was requested
    PAUSED = "PAUSED"  # confirmed; the flow waits
    RESUMED = "RESUMED"
    EXPIRED = "EXPIRED"  # its time is over, or the pause was cancelled
