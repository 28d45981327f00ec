"""The errors of publishing an event.

::

    RelayboxError
    └── EventError
        ├── EventIdInvalid   the id cannot be mapped to a UUID
        └── EventIdReused    another event has the id
"""

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = ("EventError", "EventIdInvalid", "EventIdReused")


class EventError(RelayboxError):
    """Base class of the errors of publishing an event; nothing was written."""

    error_code: ClassVar[str] = "EVENT_ERROR"


class EventIdInvalid(EventError):
    """Raised when an id is empty, longer than 255 characters or cannot be encoded as UTF-8."""

    error_code = "EVENT_ID_INVALID"


class EventIdReused(EventError):
    """Raised when an event with the same id and different content is already recorded.

    A retry fails again: publish the event with a new id. ``differs`` has the names of the fields.
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
