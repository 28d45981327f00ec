"""Define event types with the versions of their payloads, and the events that a decider returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from types import MappingProxyType
from typing import Any
from uuid import UUID

from relaybox_types.enums import CommandStatus, TaskStatus

from relaybox.events._errors import EventTypeInvalid

__all__ = ("Event", "EventType", "Events", "Settlement", "Upcaster")

Upcaster = Callable[[dict[str, Any]], Mapping[str, Any]]
"""A pure function that turns a payload of one version into a payload of the next version.

The function gets a copy of the payload, which the function may change and return.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Settlement:
    """The end of a pending command and of its open tasks, recorded together with the event that causes it."""

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


#: The events that a decider returns, in the order in which they are recorded.
Events = Sequence[Event]


@dataclass(frozen=True, slots=True)
class EventType:
    """A declared event type: its full name and the versions of its payload. Call the type to make an event.

    Raises:
        EventTypeInvalid: The version is below 1, or ``upcast`` does not have exactly one function for each
            earlier version, or has a coroutine function or an object that cannot be called.
    """

    name: str
    #: The version of the payloads that are written now, and that readers get.
    version: int = 1
    #: For each earlier version, the function that turns its payload into one of the next version.
    upcast: Mapping[int, Upcaster] = field(default_factory=dict[int, Upcaster], hash=False)

    def __post_init__(self) -> None:
        """Check the declaration."""
        _check_versions(self.name, self.version, self.upcast)
        object.__setattr__(self, "upcast", MappingProxyType(dict(self.upcast)))

    def __call__(
        self, payload: Mapping[str, Any] | None = None, *, settles: Settlement | None = None
    ) -> Event:
        """Return an event of this type.

        Args:
            payload: The payload of the event, of the declared version.
            settles: The end of a pending command that this event causes; None if it causes none.
        """
        return Event(type=self.name, event_version=self.version, payload=payload or {}, settles=settles)


def _check_versions(name: str, version: int, upcast: Mapping[int, Upcaster]) -> None:
    if version < 1:
        raise EventTypeInvalid(f"{name} has version {version}; versions begin at 1")
    missing = next((earlier for earlier in range(1, version) if earlier not in upcast), None)
    if missing is not None:
        raise EventTypeInvalid(
            f"{name} has version {version}, but upcast= has no function for version {missing}; add one that "
            f"turns a payload of version {missing} into one of version {missing + 1}"
        )
    for earlier, upcaster in upcast.items():
        if earlier not in range(1, version):
            raise EventTypeInvalid(
                f"{name} has version {version}, but upcast= has a function for version {earlier}; give one "
                "function for each version before the declared one, and no other"
            )
        if not callable(upcaster) or iscoroutinefunction(upcaster):
            raise EventTypeInvalid(
                f"upcast= of {name} has a coroutine function or an object that cannot be called for version "
                f"{earlier}; give a function declared with def"
            )
