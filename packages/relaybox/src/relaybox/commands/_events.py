"""What a decider returns: events, and what they settle."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from relaybox_types.enums import CommandStatus, TaskStatus

__all__ = ("Event", "EventType", "Events", "Settlement")


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """The end of a pending command, recorded with the event that ends it; its tasks end with it."""

    command_id: UUID
    command_status: CommandStatus
    task_status: TaskStatus
    #: What the task produced; null unless COMPLETED.
    result: Mapping[str, Any] | None = None
    #: Why it failed: ``error_code`` and ``message``; null when COMPLETED.
    error: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Something that happened, not yet recorded."""

    type: str
    event_version: int
    payload: Mapping[str, Any]
    settles: Settlement | None = None


Events = Sequence[Event]


@dataclass(frozen=True, slots=True)
class EventType:
    """A declared event: its full name and the version of its payload's shape. Calling it makes an event."""

    name: str
    version: int = 1

    def __call__(
        self, payload: Mapping[str, Any] | None = None, *, settles: Settlement | None = None
    ) -> Event:
        """This has happened, with this *payload*; *settles* ends a pending command along with it."""
        return Event(type=self.name, event_version=self.version, payload=payload or {}, settles=settles)
