"""The root of every error Relaybox raises on purpose."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypedDict

__all__ = ("Detail", "RelayboxError", "SettingsError", "error_details")

_DETAILS_MAX: Final = 20
#: A member of an enum as Pydantic shows it where a ``Literal`` names it.
_MEMBER: Final = re.compile(r"<\w+\.\w+: ([^<>]{1,100})>")
#: A place may be named by a client's own words, which may be long.
_FIELD_CHARS_MAX: Final = 200


class RelayboxError(Exception):
    """Base of all errors of the library and the applications on it.

    ``error_code`` is stable and public: it stands in HTTP error bodies, logs and metrics.
    The message names the thing that failed and what to do about it.
    """

    error_code: ClassVar[str] = "RELAYBOX_ERROR"


class SettingsError(RelayboxError):
    """Raised when the environment lacks a setting or holds a malformed one; one line per setting."""

    error_code = "SETTINGS_INVALID"


class Detail(TypedDict):
    """One entry of the ``details`` of an error about the form of something."""

    #: Where, as a path with dots: ``payload.rating``.
    field: str
    #: What is wrong there; never what stood there.
    message: str


def error_details(problems: Sequence[Any], within: str | None = None) -> list[Detail]:
    """Where and why Pydantic refused its input, from its ``errors()``: at most 20 entries, never the input.

    *within* is what was refused as a whole, and the path's beginning.
    """
    details: list[Detail] = []
    for problem in problems[:_DETAILS_MAX]:
        path = [*([] if within is None else [within]), *map(str, problem["loc"])]
        details.append(
            {"field": ".".join(path)[:_FIELD_CHARS_MAX], "message": _MEMBER.sub(r"\1", str(problem["msg"]))}
        )
    return details
