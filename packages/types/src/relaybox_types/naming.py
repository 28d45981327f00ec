"""Check names of events when they are declared (G09).

A domain uses :func:`check_past_name` unless it declares another rule: :func:`check_event_name` accepts only
the verbs of :class:`OfficialVerb`, :func:`check_dotted_name` accepts names in lower case.
"""

import re
from enum import StrEnum
from typing import Final

__all__ = ("EventNameInvalid", "OfficialVerb", "check_dotted_name", "check_event_name", "check_past_name")

_PART: Final = re.compile(r"[A-Z][A-Za-z0-9]*")
_PARTS_MIN: Final = 3
_PARTS_MAX: Final = 4
_DOTTED_PART: Final = re.compile(r"[a-z][a-z0-9_]*")
_DOTTED_PARTS_MIN: Final = 2
_NAME_CHARACTERS_MAX: Final = 200


class OfficialVerb(StrEnum):
    """Past participles: :func:`check_event_name` accepts a name only if the name ends in one of them."""

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
#: Past participles that do not end in "ed"; a prefix is allowed (Withdrawn, Rebuilt).
_IRREGULAR: Final = frozenset(
    {"beaten", "become", "begun", "bent", "bet", "bitten", "blown", "born", "borne", "bought", "bound"}
    | {"bred", "broken", "brought", "built", "burnt", "cast", "caught", "chosen", "come", "cut", "dealt"}
    | {"done", "drawn", "driven", "drunk", "eaten", "fallen", "felt", "flown", "forbidden"}
    | {"forgotten", "fought", "found", "frozen", "given", "gone", "got", "gotten", "ground", "grown"}
    | {"had", "heard", "held", "hidden", "hit", "hung", "hurt", "kept", "known", "laid", "learnt", "led"}
    | {"left", "lent", "let", "lit", "lost", "made", "meant", "met", "paid", "proven", "put", "quit", "read"}
    | {"ridden", "risen", "run", "seen", "sent", "set", "shaken", "shed", "shot", "shown", "shut", "sold"}
    | {"spent", "split", "spoken", "spread", "stolen", "stood", "struck", "stuck", "sung", "sunk"}
    | {"sworn", "swept", "taken", "taught", "thrown", "told", "torn", "understood", "won", "worn"}
    | {"woken", "written"}
)
#: Prefixes that may precede an irregular participle.
_PREFIX: Final = re.compile(r"(?:fore|inter|mis|out|over|pre|re|un|under|up|with)(?=[a-z]{2})")
_LAST_WORD: Final = re.compile(r"[A-Z][a-z0-9]*\Z")
_PAST_RULE: Final = (
    "<Domain>.<AggregateRoot>[.<SubAggregate>].<ActionInPastTense>, each part PascalCase, the last word a "
    'past participle: one that ends in "ed", or an irregular one such as Sent or Withdrawn; for names by '
    "another rule declare it: Domain(..., naming=...) and subscribe(..., naming=...)"
)
_DOTTED_RULE: Final = (
    "<aggregate>[.<part>[.<part>]].<action_in_past_tense>, each part of a to z, 0 to 9 and _, a letter first"
)


class EventNameInvalid(ValueError):
    """Raised when a declared event name breaks the naming rule of its domain."""

    error_code = "EVENT_NAME_INVALID"

    def __init__(self, name: str, reason: str, rule: str) -> None:
        """Build the message: *reason* says what is wrong with *name*, *rule* how valid names look."""
        super().__init__(f"event name {name!r} {reason}; write {rule}")


def check_event_name(name: str) -> str:
    """Return *name* if its last part ends in a verb of :class:`OfficialVerb`, as ``Shop.Order.Created`` does.

    Raises:
        EventNameInvalid: A part is not PascalCase, there are not three or four parts, the last part does not
            end in an official verb, or the name is longer than 200 characters.
    """
    *_, action = _pascal_parts_of(name, _RULE)
    if not action.endswith(tuple(OfficialVerb)):
        raise EventNameInvalid(name, "does not end in one of the allowed verbs", _RULE)
    return name


def check_past_name(name: str) -> str:
    """Return *name* if its last part ends in a past participle, as ``Shop.Order.Shipped`` does.

    Raises:
        EventNameInvalid: A part is not PascalCase, there are not three or four parts, the last word neither
            ends in "ed" nor is a known irregular participle, or the name is longer than 200 characters.
    """
    *_, action = _pascal_parts_of(name, _PAST_RULE)
    found = _LAST_WORD.search(action)
    word = found[0].lower() if found else ""
    if not (word.endswith("ed") or word in _IRREGULAR or _PREFIX.sub("", word, count=1) in _IRREGULAR):
        raise EventNameInvalid(name, "does not end in a past participle", _PAST_RULE)
    return name


def check_dotted_name(name: str) -> str:
    """Return *name* if it has two to four parts in lower case: ``order.created``, ``order.line.added``.

    The tense of the verb is not checked.

    Raises:
        EventNameInvalid: There are not two to four parts, a part is not of ``a-z0-9_`` with a letter first,
            or the name is longer than 200 characters.
    """
    parts = _parts_of(name, _DOTTED_RULE)
    if not _DOTTED_PARTS_MIN <= len(parts) <= _PARTS_MAX:
        reason = f"has {len(parts)} parts instead of {_DOTTED_PARTS_MIN} to {_PARTS_MAX}"
        raise EventNameInvalid(name, reason, _DOTTED_RULE)
    for part in parts:
        if not _DOTTED_PART.fullmatch(part):
            reason = f"has a part {part!r} that does not match {_DOTTED_PART.pattern}"
            raise EventNameInvalid(name, reason, _DOTTED_RULE)
    return name


def _pascal_parts_of(name: str, rule: str) -> list[str]:
    parts = _parts_of(name, rule)
    if not _PARTS_MIN <= len(parts) <= _PARTS_MAX:
        raise EventNameInvalid(name, f"has {len(parts)} parts instead of {_PARTS_MIN} or {_PARTS_MAX}", rule)
    for part in parts:
        if not _PART.fullmatch(part):
            raise EventNameInvalid(name, f"has a part {part!r} that is not PascalCase", rule)
    return parts


def _parts_of(name: str, rule: str) -> list[str]:
    if len(name) > _NAME_CHARACTERS_MAX:
        raise EventNameInvalid(name[:40] + "…", f"is longer than {_NAME_CHARACTERS_MAX} characters", rule)
    return name.split(".")
