"""Decide what to do after an attempt; pure functions without clock, randomness or I/O."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, cast

from pydantic_core import from_json

__all__ = ("GiveUp", "Retry", "http_date", "is_retryable", "next_step", "quoted", "retry_after_s")

#: The server stores none of these, and a gateway may send some of them when only the response was lost.
_REPEATED: Final = frozenset({429, 500, 502, 503, 504})
#: Bound of the first wait; doubles with each attempt up to the second value.
_PAUSE_S: Final = 0.5
_PAUSE_S_MAX: Final = 8.0
#: Without quotes and backslashes, the content of a quoted header is the key itself, and a key that is quoted
#: already is refused.
_KEY: Final = re.compile(r"[ !#-\[\]-~]{1,255}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Send the same request again after *after_s* seconds."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Attempts or time have run out; return the result of the last attempt."""


def quoted(key: str) -> str | None:
    """Return *key* as the value of ``Idempotency-Key``: an sf-string (RFC 9651, section 3.3.3).

    None for an invalid key; valid are 1 to 255 printable ASCII characters without quotes and backslashes.
    """
    return f'"{key}"' if _KEY.fullmatch(key) else None


def is_retryable(status: int, body: bytes) -> bool:
    """Whether the outcome of a request with this response is open.

    A 409 is retryable while the first request is running; any other 409 is a conflict of the application,
    which a retry does not resolve.
    """
    return status in _REPEATED or (status == 409 and _error_code(body) == "REQUEST_IN_FLIGHT")


def _error_code(body: bytes) -> object:
    try:
        document: object = from_json(body)
    except ValueError:  # for example the error page of a proxy
        return None
    return cast("dict[str, object]", document).get("error_code") if isinstance(document, dict) else None


def http_date(text: str) -> datetime | None:
    """Parse a date in one of the three formats of HTTP (RFC 9110, section 5.6.7); None if malformed."""
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # OverflowError for a year or an offset of twenty digits
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def retry_after_s(text: str, now: datetime) -> float | None:
    """Return the seconds of a ``Retry-After`` (RFC 9110, section 10.2.3), 0 for a date that has passed.

    None for a value that is neither seconds nor a date.
    """
    if text.isascii() and text.isdigit():
        return float(text)
    at = http_date(text)
    return None if at is None else max(0.0, (at - now).total_seconds())


def next_step(
    attempts: int, *, attempts_max: int, left_s: float, requested_s: float | None, chance: float
) -> Retry | GiveUp:
    """Return the next step after *attempts* attempts without a final response.

    The wait is what the server requests (*requested_s*), else between 0 and a bound that doubles from 0.5 to
    8 s ("full jitter"; *chance* is from 0 to 1), so that clients that failed together do not retry together.
    If the wait is longer than *left_s*, the client gives up: an earlier retry would be refused.
    """
    assert attempts >= 1
    bound_s = min(_PAUSE_S_MAX, _PAUSE_S * 2 ** min(attempts - 1, 10))
    after_s = chance * bound_s if requested_s is None else requested_s
    if attempts >= attempts_max or after_s >= left_s:
        return GiveUp()
    return Retry(after_s=after_s)
