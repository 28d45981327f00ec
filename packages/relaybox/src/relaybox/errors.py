"""Base class of all errors of Relaybox, and details of validation errors."""

import re
from collections.abc import Sequence
from typing import Any, ClassVar, Final, TypedDict

__all__ = ("Detail", "RelayboxError", "SettingsError", "error_details")

_DETAILS_MAX: Final = 20
#: Matches an enum member as Pydantic writes it in errors about a ``Literal``; ``details`` get only its value.
_MEMBER: Final = re.compile(r"<\w+\.\w+: ([^<>]{1,100})>")
#: Maximum length of ``field`` in ``details``: the path may contain long names from the client's document.
_FIELD_CHARS_MAX: Final = 200


class RelayboxError(Exception):
    """Base class of all errors of the library and of applications that use it.

    ``error_code`` is in HTTP error bodies, logs and metrics, and does not change between versions. The
    message says what failed, with which object, and what to do.
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
    """Convert the errors of a Pydantic validation to ``details``, which never contain the invalid values.

    Args:
        problems: Result of ``ValidationError.errors()``; only the first 20 are converted.
        within: Prefix of each path: with ``payload``, the path of ``rating`` is ``payload.rating``. None: no
            prefix.

    Returns:
        One entry per problem. A path is cut off after 200 characters.
    """
    details: list[Detail] = []
    for problem in problems[:_DETAILS_MAX]:
        path = [*([] if within is None else [within]), *map(str, problem["loc"])]
        details.append(
            {"field": ".".join(path)[:_FIELD_CHARS_MAX], "message": _MEMBER.sub(r"\1", str(problem["msg"]))}
        )
    return details
