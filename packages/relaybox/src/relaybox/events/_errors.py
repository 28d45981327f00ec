"""Why an event was not published.

::

    RelayboxError
    └── EventError
        ├── EventIdInvalid   no id can be made of what was given
        └── EventIdReused    the id belongs to an event with another content
"""

from collections.abc import Mapping
from typing import ClassVar
from uuid import UUID

from relaybox.errors import RelayboxError

__all__ = ("EventError", "EventIdInvalid", "EventIdReused")


class EventError(RelayboxError):
    """Base of the reasons for which an event is not published."""

    error_code: ClassVar[str] = "EVENT_ERROR"


class EventIdInvalid(EventError):
    """Raised when an id is empty, longer than 255 characters or no text that UTF-8 can write."""

    error_code = "EVENT_ID_INVALID"


class EventIdReused(EventError):
    """Raised when an event has the id of a recorded one and another content; nothing was written.

    Publishing it again cannot help: another event needs another id. ``differs`` names the fields.
    """

    error_code = "EVENT_ID_REUSED"

    def __init__(self, event_id: UUID, differences: Mapping[str, str]) -> None:
        """*differences*: for each field that differs, how; never what a payload holds."""
        self.event_id = event_id
        self.differs = tuple(differences)
        super().__init__(
            f"the event {event_id} is recorded with another content: {'; '.join(differences.values())}; "
            "give another event another event_id"
        )
