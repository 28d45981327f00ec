"""Errors of operator actions.

The *marker* of a lane is the id of the lane's last batch in Kafka.

::

    RelayboxError
    └── OperationError
        ├── SelectionEmpty   no such object (row, dead letter, flow, …), or the action does not apply to it
        ├── ParkingRefused   the group has passed the message, or there is no such message
        ├── LanesRefused     the number of lanes is not allowed
        ├── MarkerRefused    the lane has no fault, or a fault with another marker
        ├── FlowAwaitsEvent  only an event ends the pause of a flow
        ├── TaskCommandSettled
        │                    the command of a task has ended, so that its result would be rejected
        ├── GroupUnknown     neither Kafka nor the database has the consumer group
        ├── GroupUnreadable  Kafka refuses to describe the group or its topics
        └── KafkaUnavailable no broker responds
"""

from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = (
    "FlowAwaitsEvent",
    "GroupUnknown",
    "GroupUnreadable",
    "KafkaUnavailable",
    "LanesRefused",
    "MarkerRefused",
    "OperationError",
    "ParkingRefused",
    "SelectionEmpty",
    "TaskCommandSettled",
)


class OperationError(RelayboxError):
    """Base class of the errors of operator actions; nothing was changed."""

    error_code = "OPERATION_ERROR"


class SelectionEmpty(OperationError):
    """Raised when the named object does not exist, or when the action does not apply to its state.

    The object is a row of the outbox, a dead letter, a flow, a pause, a task or a schedule. If several
    objects are named, the action applies to none of them. Most messages name the ``relaybox`` command that
    shows these objects.
    """

    error_code = "SELECTION_EMPTY"


class ParkingRefused(OperationError):
    """Raised when a message cannot be parked.

    The group has committed a later offset or has parked the message already, or Kafka has no such message.
    """

    error_code = "PARKING_REFUSED"


class LanesRefused(OperationError):
    """Raised when the requested number of lanes is above 1,024, or not the former number times 1, 2, 4, …."""

    error_code = "LANES_REFUSED"


class MarkerRefused(OperationError):
    """Raised when an operator accepts a marker for a lane without a fault, or whose fault has another marker.

    ``relaybox relay status`` shows the lanes, their faults and markers.
    """

    error_code = "MARKER_REFUSED"


class FlowAwaitsEvent(OperationError):
    """Raised when an operator resumes a pause that only an event can end.

    The flow needs the content of the event, which the payload of a resume cannot replace.
    """

    error_code = "FLOW_AWAITS_EVENT"

    def __init__(self, correlation_id: str, event_type: str, key: str) -> None:
        super().__init__(
            f"the pause {correlation_id!r} waits for an event {event_type} of {key!r}; a resume cannot "
            "replace this event: publish the event, or cancel the flow with `relaybox flow cancel`"
        )


class GroupUnknown(OperationError):
    """Raised when there is no such consumer group; ``relaybox consumer status`` lists the known groups."""

    error_code = "GROUP_UNKNOWN"


class GroupUnreadable(OperationError):
    """Raised when Kafka refuses to describe a consumer group or its topics; grant DESCRIBE on them."""

    error_code = "GROUP_UNREADABLE"

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(f"{what}; {remedy}")
        #: What cannot be read, with Kafka's reason.
        self.what = what
        #: What the operator should do.
        self.remedy = remedy


class KafkaUnavailable(OperationError):
    """Raised when no broker responds; the message names the settings to check."""

    error_code = "KAFKA_UNAVAILABLE"


class TaskCommandSettled(OperationError):
    """Raised by a retry of a task whose command has ended: the task's result would be rejected."""

    error_code = "TASK_COMMAND_SETTLED"

    def __init__(self, task_id: UUID, command_id: UUID, command_status: str | None) -> None:
        state = "removed by retention" if command_status is None else command_status
        super().__init__(
            f"the command {command_id} of task {task_id} is {state}, so the result of another attempt would "
            "be rejected; send a new command"
        )
