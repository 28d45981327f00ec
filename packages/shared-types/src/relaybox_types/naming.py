"""The naming rule of events, checked where a name is declared (contract, section 3; G09)."""

import re
from enum import StrEnum
from typing import Final

__all__ = ("EventNameInvalid", "OfficialVerb", "check_event_name")

_PART: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
_PARTS_MIN: Final = 3
_PARTS_MAX: Final = 4
_NAME_CHARACTERS_MAX: Final = 200


class OfficialVerb(StrEnum):
    """The past participles an event's action may end in."""

    REQUESTED = "Requested"
    CREATED = "Created"
    PROPOSED = "Proposed"
    SUBMITTED = "Submitted"
    CONFIRMED = "Confirmed"
    UPDATED = "Updated"
    REVISED = "Revised"
    COMPLETED = "Completed"
    FINISHED = "Finished"
    FAILED = "Failed"


class EventNameInvalid(ValueError):
    """Raised when a declared event name breaks ``<Domain>.<AggregateRoot>[.<SubAggregate>].<Action>``."""

    error_code = "EVENT_NAME_INVALID"

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"event name {name!r} {reason}; write "
            "<Domain>.<AggregateRoot>[.<SubAggregate>].<ActionInPastTense>, "
            f"each part PascalCase, the last ending in one of {', '.join(OfficialVerb)}"
        )


def check_event_name(name: str) -> str:
    """Return *name* if it keeps the rule.

    Raises:
        EventNameInvalid: a part is not PascalCase, there are not three or four of them, the
            last does not end in an official verb, or the whole is over 200 characters.
    """
    parts = name.split(".")
    if len(name) > _NAME_CHARACTERS_MAX:
        raise EventNameInvalid(name[:40] + "…", f"is longer than {_NAME_CHARACTERS_MAX} characters")
    if not _PARTS_MIN <= len(parts) <= _PARTS_MAX:
        raise EventNameInvalid(name, f"has {len(parts)} parts instead of {_PARTS_MIN} or {_PARTS_MAX}")
    for part in parts:
        if not _PART.fullmatch(part):
            raise EventNameInvalid(name, f"has a part {part!r} that is not PascalCase")
    if not parts[-1].endswith(tuple(OfficialVerb)):
        raise EventNameInvalid(name, "does not end in an official verb")
    return name
