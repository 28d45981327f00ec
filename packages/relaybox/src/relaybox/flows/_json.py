"""Write the documents of flows as JSON that PostgreSQL can store and every reader accepts."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic_core import PydanticSerializationError, from_json, to_json

from relaybox.db import contains_nul
from relaybox.flows._errors import FlowDocumentInvalid

__all__ = ("json_of",)

#: Levels that rows and events add around a document; a reader accepts 200 levels.
_LEVELS_ADDED: Final = 20


def json_of(name: str, document: Mapping[str, Any], bytes_max: int) -> str:
    """Return *document* as JSON; errors call it *name*.

    Raises:
        FlowDocumentInvalid: It has over *bytes_max* bytes or over 180 levels, or contains NUL or a value that
            JSON cannot represent, such as NaN.
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
