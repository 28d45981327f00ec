"""The errors of events.

::

    RelayboxError
    └── EventError
        ├── EventIdInvalid           the id cannot be mapped to a UUID
        ├── EventIdReused            another event has the id
        ├── EventTypeInvalid         an event type is declared wrongly; raised at import
        └── EventUnreadable          the payload cannot be converted to the declared version
            ├── EventVersionUnknown  a later release has written the event
            └── EventUpcastFailed    an upcaster raised an exception, or returned no JSON object
"""

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = (
    "EventError",
    "EventIdInvalid",
    "EventIdReused",
    "EventTypeInvalid",
    "EventUnreadable",
    "EventUpcastFailed",
    "EventVersionUnknown",
)


class EventError(RelayboxError):
    """Base class of the errors of this package; the call that raised the error has written nothing."""

    error_code: ClassVar[str] = "EVENT_ERROR"


class EventIdInvalid(EventError):
    """Raised when an id is empty, longer than 255 characters or cannot be encoded as UTF-8."""

    error_code = "EVENT_ID_INVALID"


class EventIdReused(EventError):
    """Raised when an event with the same id and different content is already recorded.

    A retry fails again: publish the event with a new id. ``differs`` has the names of the fields that differ.
    """

    error_code = "EVENT_ID_REUSED"

    def __init__(self, event_id: UUID, differences: Mapping[str, str]) -> None:
        """Create the error; *differences* describe each field, never the content of a payload."""
        self.event_id = event_id
        self.differs = tuple(differences)
        super().__init__(
            f"event {event_id} is recorded with different content: {'; '.join(differences.values())}; "
            "publish a different event with a new event_id"
        )


class EventTypeInvalid(EventError):
    """Raised when an event type is declared wrongly, for example without an upcaster for an old version."""

    error_code = "EVENT_TYPE_INVALID"


class EventUnreadable(EventError):
    """Base class of errors that are raised when a payload cannot be converted to the declared version.

    A retry cannot help. The message never contains the payload. ``event_id`` is None for an event that is not
    recorded yet.
    """

    error_code = "EVENT_UNREADABLE"

    def __init__(self, message: str, *, event_type: str, event_id: UUID | None) -> None:
        self.event_type, self.event_id = event_type, event_id
        super().__init__(f"event {event_id or '(not recorded)'} of type {event_type} {message}")


class EventVersionUnknown(EventUnreadable):
    """Raised when an event has a version above the declared version of its type, or below 1.

    Usually a later release of the application wrote the event.
    """

    error_code = "EVENT_VERSION_UNKNOWN"

    def __init__(self, event_type: str, event_id: UUID | None, version: int, *, known: int) -> None:
        """Create the error; *version* is that of the event, *known* the declared version of its type."""
        self.version, self.known = version, known
        super().__init__(
            f"has version {version}, but this release knows versions 1 to {known}; run a release that "
            f"declares version {version}",
            event_type=event_type,
            event_id=event_id,
        )


class EventUpcastFailed(EventUnreadable):
    """Raised when an upcaster raised an exception, which is the cause, or returned no JSON object."""

    error_code = "EVENT_UPCAST_FAILED"

    def __init__(self, event_type: str, event_id: UUID | None, version: int, reason: str) -> None:
        """Create the error; the upcaster converts *version*, and *reason* must not contain the payload."""
        self.version = version
        super().__init__(
            f"cannot be read: its upcaster from version {version} to {version + 1} {reason}; repair the "
            "function, and read the event again",
            event_type=event_type,
            event_id=event_id,
        )
