"""Cursors of pages: where a page ended, and where the next one starts."""

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from pydantic_core import from_json, to_json
from relaybox.errors import Detail
from relaybox.http import ValidationFailed

__all__ = ("cursor_int", "cursor_time", "decode_cursor", "encode_cursor")

_INTEGER_MAX: Final = 2_147_483_647


def encode_cursor(*place: object) -> str:
    """Where a page ended, for its client to give back."""
    return base64.urlsafe_b64encode(to_json(place)).decode()


def cursor_time(text: str) -> datetime:
    """A time of a cursor's, for :func:`place_of`.

    Raises:
        ValueError, TypeError, OverflowError: it is none that PostgreSQL takes.
    """
    return datetime.fromisoformat(text).astimezone(UTC)


def cursor_int(number: object) -> int:
    """A number of a cursor's, for :func:`place_of`; what PostgreSQL calls an integer.

    Raises:
        ValueError: it is none.
    """
    if isinstance(number, bool) or not isinstance(number, int) or abs(number) > _INTEGER_MAX:
        raise ValueError
    return number


def decode_cursor(cursor: str | None, *types: Callable[[Any], Any]) -> Sequence[Any]:
    """What :func:`cursor_of` was given, each part read by its type; as many nulls for the first page.

    Raises:
        ValidationFailed: the cursor is none of ours.
    """
    if cursor is None:
        return [None] * len(types)
    try:
        parts = from_json(base64.urlsafe_b64decode(cursor))
        return [read(part) for read, part in zip(types, parts, strict=True)]
    except (ValueError, TypeError, AttributeError, OverflowError):
        detail = Detail(field="query.cursor", message="take it from next_cursor of the page before")
        raise ValidationFailed([detail]) from None
