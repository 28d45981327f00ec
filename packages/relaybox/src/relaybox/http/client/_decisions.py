"""Decide what to do after an attempt; pure functions without clock, randomness or I/O."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, cast

from pydantic_core import from_json

__all__ = ("GiveUp", "Retry", "http_date", "is_retryable", "next_step", "quoted", "retry_after_s")

#: Statuses after which a request is repeated: the server stores no such response, and a proxy may send them
#: although the request was executed.
_REPEATED: Final = frozenset({429, 500, 502, 503, 504})
#: Upper limit in seconds of the random wait after the first attempt. The limit doubles with each attempt, up
#: to ``_PAUSE_S_MAX``.
_PAUSE_S: Final = 0.5
_PAUSE_S_MAX: Final = 8.0
#: Matches valid keys. A valid key contains no quotes and backslashes. So no character must be escaped in the
#: header, and a key that the caller has already put in quotes is refused.
_KEY: Final = re.compile(r"[ !#-\[\]-~]{1,255}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Send the same request again after *after_s* seconds."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Make no more attempts, because attempts or time have run out; return the result of the last attempt."""


def quoted(key: str) -> str | None:
    """Return *key* as the value of ``Idempotency-Key``, an sf-string (RFC 9651, section 3.3.3).

    The result is None if *key* is not 1 to 255 printable ASCII characters without quotes and backslashes.
    """
    return f'"{key}"' if _KEY.fullmatch(key) else None


def is_retryable(status: int, body: bytes) -> bool:
    """Return whether a request with this response should be repeated.

    Of the responses with status 409, only ``REQUEST_IN_FLIGHT`` is retryable. The others are conflicts in the
    application, which a retry does not resolve.
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
    except (ValueError, OverflowError):  # OverflowError: a year or an offset of twenty digits
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def retry_after_s(text: str, now: datetime) -> float | None:
    """Return the seconds that a ``Retry-After`` requests (RFC 9110, section 10.2.3).

    Args:
        text: Value of the header: seconds or a date.
        now: The present time, from which the seconds until a date are counted.

    Returns:
        The seconds, 0 for a date before *now*; None if *text* is neither seconds nor a date.
    """
    if text.isascii() and text.isdigit():
        return float(text)
    at = http_date(text)
    return None if at is None else max(0.0, (at - now).total_seconds())


def next_step(
    attempts: int, *, attempts_max: int, left_s: float, requested_s: float | None, chance: float
) -> Retry | GiveUp:
    """Return the next step after *attempts* attempts without a final response.

    Without *requested_s* the wait is random, up to a maximum that doubles from 0.5 to 8 s ("full jitter"), so
    that clients that failed at the same time do not retry at the same time.

    Args:
        attempts: Number of attempts so far, at least 1.
        attempts_max: Maximum number of attempts.
        left_s: Seconds that are left for all attempts; a wait of this time or longer ends the attempts.
        requested_s: Seconds that the server requested by ``Retry-After``; None if it requested none.
        chance: Random number from 0 to 1: the random wait as a share of its maximum.
    """
    assert attempts >= 1
    bound_s = min(_PAUSE_S_MAX, _PAUSE_S * 2 ** min(attempts - 1, 10))
    after_s = chance * bound_s if requested_s is None else requested_s
    if attempts >= attempts_max or after_s >= left_s:
        return GiveUp()
    return Retry(after_s=after_s)
