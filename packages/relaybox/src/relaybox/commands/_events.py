"""Define what a decider returns: events, and the ends of pending commands that the events cause."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from relaybox_types.enums import CommandStatus, TaskStatus

__all__ = ("Event", "EventType", "Events", "Settlement")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """The end of a pending command and of its tasks, written with the event that causes it."""

    command_id: UUID
    command_status: CommandStatus
    task_status: TaskStatus
    #: The task's result; None unless COMPLETED.
    result: Mapping[str, Any] | None = None
    #: ``error_code`` and ``message`` of the failure; None if COMPLETED.
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An event that a decider has returned, before it is recorded."""

    type: str
    event_version: int
    payload: Mapping[str, Any]
    #: The end of a pending command that this event causes; None if it causes none.
    settles: Settlement | None = None


Events = Sequence[Event]


@dataclass(frozen=True, slots=True)
class EventType:
    """A declared event type: its full name and the version of its payload. Call it to make an event."""

    name: str
    version: int = 1

    def __call__(
        self, payload: Mapping[str, Any] | None = None, *, settles: Settlement | None = None
    ) -> Event:
        """Return an event of this type.

        Args:
            payload: The payload of the event.
            settles: The end of a pending command that this event causes; None if it causes none.
        """
        return Event(type=self.name, event_version=self.version, payload=payload or {}, settles=settles)
