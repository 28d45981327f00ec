"""Ids of events: UUIDs, or names that stand for one."""

import re
from typing import Final
from uuid import UUID, uuid5

from relaybox.events._errors import EventIdInvalid

__all__ = ("EVENT_ID_NAMESPACE", "event_uuid")

EVENT_ID_NAMESPACE: Final = UUID("bcc060ee-5bc9-58cc-bef1-4888f8750aed")
"""The namespace of ids that are no UUIDs: the uuid5 of ``urn:relaybox:event-id`` in ``NAMESPACE_URL``."""

#: As RFC 9562 (section 4) writes it, or without the hyphens; braces and other freedoms of parsers are names.
_UUID: Final = re.compile(
    r"[0-9a-f]{8}(-?)[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{4}\1[0-9a-f]{12}", re.IGNORECASE
)
_NAME_CHARS_MAX: Final = 255


def event_uuid(name: UUID | str) -> UUID:
    """The UUID that *name* stands for: itself, or ``uuid5(EVENT_ID_NAMESPACE, name)`` (RFC 9562, 5.5).

    A text of 32 hexadecimal digits, with hyphens at their places or with none, is a UUID; every other
    (``"evt_123"``) is a name of 1 to 255 characters, taken as it stands: no trimming, case counts.

    Raises:
        EventIdInvalid: *name* is empty, too long, or holds half a surrogate pair.
    """
    if isinstance(name, UUID):
        return name
    if _UUID.fullmatch(name):
        return UUID(name)
    if not 1 <= len(name) <= _NAME_CHARS_MAX:
        raise EventIdInvalid(
            f"an id has 1 to {_NAME_CHARS_MAX} characters, this one {len(name)}; give another"
        )
    try:
        return uuid5(EVENT_ID_NAMESPACE, name)
    except UnicodeEncodeError as error:
        raise EventIdInvalid("an id holds half a surrogate pair, which UTF-8 cannot write") from error
