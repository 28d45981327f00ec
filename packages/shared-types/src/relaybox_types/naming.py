"""The naming rules of events, checked where a name is declared (contract, section 3; G09).

:func:`check_event_name` is the default; a domain may declare another, such as :func:`check_dotted_name`.
"""

import re
from enum import StrEnum
from typing import Final

__all__ = ("EventNameInvalid", "OfficialVerb", "check_dotted_name", "check_event_name")

_PART: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
_PARTS_MIN: Final = 3
_PARTS_MAX: Final = 4
_DOTTED_PART: Final = re.compile(r"[a-z][a-z0-9_]*")
_DOTTED_PARTS_MIN: Final = 2
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


_RULE: Final = (
    "<Domain>.<AggregateRoot>[.<SubAggregate>].<ActionInPastTense>, each part PascalCase, "
    f"the last ending in one of {', '.join(OfficialVerb)}"
)
_DOTTED_RULE: Final = (
    "<aggregate>[.<part>[.<part>]].<action_in_past_tense>, each part of a to z, 0 to 9 and _, a letter first"
)


class EventNameInvalid(ValueError):
    """Raised when a declared event name breaks the naming rule of its domain."""

    error_code = "EVENT_NAME_INVALID"

    def __init__(self, name: str, reason: str, rule: str) -> None:
        """*rule*: how to write one that keeps it."""
        super().__init__(f"event name {name!r} {reason}; write {rule}")


def check_event_name(name: str) -> str:
    """Return *name* if it keeps the rule.

    Raises:
        EventNameInvalid: a part is not PascalCase, there are not three or four of them, the
            last does not end in an official verb, or the whole is over 200 characters.
    """
    parts = _parts_of(name, _RULE)
    if not _PARTS_MIN <= len(parts) <= _PARTS_MAX:
        raise EventNameInvalid(name, f"has {len(parts)} parts instead of {_PARTS_MIN} or {_PARTS_MAX}", _RULE)
    for part in parts:
        if not _PART.fullmatch(part):
            raise EventNameInvalid(name, f"has a part {part!r} that is not PascalCase", _RULE)
    if not parts[-1].endswith(tuple(OfficialVerb)):
        raise EventNameInvalid(name, "does not end in an official verb", _RULE)
    return name


def check_dotted_name(name: str) -> str:
    """Return *name* if it is of two to four parts in lower case: ``node.created``, ``study.chapter.created``.

    Any verb will do: the official ones are those of the other rule.

    Raises:
        EventNameInvalid: there are not two to four parts, one is not of ``a-z0-9_`` with a letter first,
            or the whole is over 200 characters.
    """
    parts = _parts_of(name, _DOTTED_RULE)
    if not _DOTTED_PARTS_MIN <= len(parts) <= _PARTS_MAX:
        reason = f"has {len(parts)} parts instead of {_DOTTED_PARTS_MIN} to {_PARTS_MAX}"
        raise EventNameInvalid(name, reason, _DOTTED_RULE)
    for part in parts:
        if not _DOTTED_PART.fullmatch(part):
            raise EventNameInvalid(name, f"has a part {part!r} that is not in lower case", _DOTTED_RULE)
    return name


def _parts_of(name: str, rule: str) -> list[str]:
    if len(name) > _NAME_CHARACTERS_MAX:
        raise EventNameInvalid(name[:40] + "…", f"is longer than {_NAME_CHARACTERS_MAX} characters", rule)
    return name.split(".")
