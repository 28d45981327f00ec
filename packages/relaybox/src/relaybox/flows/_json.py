"""Check the arguments of flows: documents, texts and times that PostgreSQL can store."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic_core import PydanticSerializationError, from_json, to_json

from relaybox.db import contains_nul
from relaybox.flows._errors import FlowDocumentInvalid, FlowError, FlowInvalid

__all__ = ("NAME_CHARACTERS_MAX", "check_text", "check_wait", "json_of")

#: Longest name of a flow and of a step.
NAME_CHARACTERS_MAX: Final = 120
#: Longest wait: 100 years. Both PostgreSQL and Python can represent a time this far in the future.
_WAIT_MAX: Final = timedelta(days=36_525)

#: Levels of nesting that rows and events add around a document; a JSON reader accepts 200 levels in total.
_LEVELS_ADDED: Final = 20


def json_of(name: str, document: Mapping[str, Any], bytes_max: int) -> str:
    """Return *document* as JSON; *name* is the name of the document in error messages.

    Raises:
        FlowDocumentInvalid: *document* has over *bytes_max* bytes of JSON, or over 180 levels of nesting, or
            contains the NUL character, or a value that JSON cannot represent, such as NaN.
    """
    try:
        value = to_json(document)
        from_json(b"[" * _LEVELS_ADDED + value + b"]" * _LEVELS_ADDED, allow_inf_nan=False)
    except (PydanticSerializationError, ValueError) as error:
        raise FlowDocumentInvalid(
            f"{name} cannot be stored as JSON: {error}; use values that JSON has, numbers of at most 4,300 "
            f"digits, and at most {200 - _LEVELS_ADDED} levels"
        ) from error
    if len(value) > bytes_max:
        raise FlowDocumentInvalid(
            f"{name} has {len(value):,} bytes of JSON, more than {bytes_max:,}; store the data elsewhere and "
            "pass a reference"
        )
    if contains_nul(value):
        raise FlowDocumentInvalid(f"{name} contains the NUL character (U+0000); remove it")
    return value.decode()


def check_text(name: str, value: str, characters_max: int, *, error: type[FlowError] = FlowInvalid) -> None:
    """Check that PostgreSQL can store *value*; *name* is the name of the value in error messages.

    Raises:
        FlowError: *value* is empty, or has over *characters_max* characters, or contains the NUL character
            or half a surrogate pair. The class of the error is *error*.
    """
    has_surrogate = any("\ud800" <= character <= "\udfff" for character in value[:characters_max])
    if not 1 <= len(value) <= characters_max or "\0" in value or has_surrogate:
        raise error(
            f"{name} must have 1 to {characters_max} characters, without NUL and halves of surrogate pairs, "
            f"not {value[:40]!r} of {len(value):,} characters"
        )


def check_wait(name: str, wait: timedelta) -> None:
    """Check that *wait* is at most 100 years long; *name* is the name of the wait in error messages.

    Raises:
        FlowInvalid: *wait* is longer.
    """
    if wait > _WAIT_MAX:
        raise FlowInvalid(
            f"{name} is {wait.days:,} days away; choose a time in at most {_WAIT_MAX.days:,} days"
        )
