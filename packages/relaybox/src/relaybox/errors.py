"""The base class of all errors of Relaybox, and the details of validation errors."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypedDict

__all__ = ("Detail", "RelayboxError", "SettingsError", "error_details")

_DETAILS_MAX: Final = 20
#: A member of an enum as Pydantic shows it in an error about a ``Literal``.
_MEMBER: Final = re.compile(r"<\w+\.\w+: ([^<>]{1,100})>")
#: A path may contain names from the client's document, which may be long.
_FIELD_CHARS_MAX: Final = 200


class RelayboxError(Exception):
    """Base of all errors of the library and the applications on it.

    ``error_code`` is stable and public: HTTP error bodies, logs and metrics contain it. The message names
    the object that failed and what to do.
    """

    error_code: ClassVar[str] = "RELAYBOX_ERROR"


class SettingsError(RelayboxError):
    """Raised when a setting is missing or malformed; the message has one line per setting."""

    error_code = "SETTINGS_INVALID"


class Detail(TypedDict):
    """One entry of the ``details`` of a validation error."""

    #: The invalid field, as a path with dots: ``payload.rating``.
    field: str
    #: What is wrong; never contains the value.
    message: str


def error_details(problems: Sequence[Any], within: str | None = None) -> list[Detail]:
    """Convert the ``errors()`` of a Pydantic error: at most 20 entries, without the input.

    *within* is the beginning of each path, for example ``payload``.
    """
    details: list[Detail] = []
    for problem in problems[:_DETAILS_MAX]:
        path = [*([] if within is None else [within]), *map(str, problem["loc"])]
        details.append(
            {"field": ".".join(path)[:_FIELD_CHARS_MAX], "message": _MEMBER.sub(r"\1", str(problem["msg"]))}
        )
    return details
