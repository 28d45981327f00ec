"""Map the ids of events to UUIDs."""

import re
from typing import Final
from uuid import UUID, uuid5

from relaybox.events._errors import EventIdInvalid

__all__ = ("EVENT_ID_NAMESPACE", "event_uuid")

EVENT_ID_NAMESPACE: Final = UUID("bcc060ee-5bc9-58cc-bef1-4888f8750aed")
"""Namespace of ids that are not UUIDs: the uuid5 of ``urn:relaybox:event-id`` in ``NAMESPACE_URL``."""

#: The format of RFC 9562 (section 4), with or without hyphens. Other formats that :class:`UUID` accepts, such
#: as braces, are names.
_UUID: Final = re.compile(
    r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.IGNORECASE
)
_NAME_CHARS_MAX: Final = 255


def event_uuid(name: UUID | str) -> UUID:
    """Return *name* as a UUID: parsed if it is one, else ``uuid5(EVENT_ID_NAMESPACE, name)`` (RFC 9562, 5.5).

    A text of 32 hexadecimal digits, with all four hyphens or with none, is a UUID. Any other text, such as
    ``"evt_123"``, is a name of 1 to 255 characters, which is neither trimmed nor case-folded.

    Raises:
        EventIdInvalid: *name* is empty, too long, or contains half a surrogate pair.
    """
    if isinstance(name, UUID):
        return name
    if _UUID.fullmatch(name):
        return UUID(name)
    if not 1 <= len(name) <= _NAME_CHARS_MAX:
        raise EventIdInvalid(
            f"the id of the event has {len(name)} characters; use an id of 1 to {_NAME_CHARS_MAX} characters"
        )
    try:
        return uuid5(EVENT_ID_NAMESPACE, name)
    except UnicodeEncodeError as error:
        raise EventIdInvalid(
            f"the id {name!r} contains half a surrogate pair, which UTF-8 cannot encode; use another id"
        ) from error
