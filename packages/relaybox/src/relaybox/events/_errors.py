"""The errors of publishing an event.

::

    RelayboxError
    └── EventError
        ├── EventIdInvalid   the given id cannot be mapped to a UUID
        └── EventIdReused    an event with another content has the id
"""

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = ("EventError", "EventIdInvalid", "EventIdReused")


class EventError(RelayboxError):
    """Base of the errors of publishing an event; nothing was written."""

    error_code: ClassVar[str] = "EVENT_ERROR"


class EventIdInvalid(EventError):
    """Raised when an id is empty, longer than 255 characters or cannot be encoded as UTF-8."""

    error_code = "EVENT_ID_INVALID"


class EventIdReused(EventError):
    """Raised when an event with the same id and another content is recorded; nothing was written.

    A retry cannot help: give another event another id. ``differs`` names the fields.
    """

    error_code = "EVENT_ID_REUSED"

    def __init__(self, event_id: UUID, differences: Mapping[str, str]) -> None:
        """Name the *differences* by field; they never contain the content of a payload."""
        self.event_id = event_id
        self.differs = tuple(differences)
        super().__init__(
            f"the event {event_id} is recorded with another content: {'; '.join(differences.values())}; "
            "give another event another event_id"
        )
