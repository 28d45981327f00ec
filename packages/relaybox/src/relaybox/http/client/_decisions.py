"""What to do after an attempt. Pure: no clock, no chance, no I/O."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, cast

from pydantic_core import from_json

__all__ = ("GiveUp", "Retry", "http_date", "is_retryable", "next_step", "quoted", "retry_after_s")

#: None of these is recorded, and a gateway may say some of them when only the answer got lost.
_REPEATED: Final = frozenset({429, 500, 502, 503, 504})
#: The longest wait of the first retry; doubles up to the second figure.
_PAUSE_S: Final = 0.5
_PAUSE_S_MAX: Final = 8.0
#: No quote and no backslash: what a quoted header holds is then the key itself, and a value that is
#: already quoted is noticed.
_KEY: Final = re.compile(r"[ !#-\[\]-~]{1,255}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Retry:
    """Send the same request again after *after_s* seconds."""

    after_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class GiveUp:
    """Attempts or time have run out; the caller gets what the last attempt brought."""


def quoted(key: str) -> str | None:
    """*key* as the value of ``Idempotency-Key``: an sf-string (RFC 9651, section 3.3.3).

    None for what is no key: 1 to 255 printable ASCII characters without quotes and backslashes.
    """
    return f'"{key}"' if _KEY.fullmatch(key) else None


def is_retryable(status: int, body: bytes) -> bool:
    """Whether an answer leaves the wish open.

    A 409 does while the first request still runs; any other 409 is the application's own conflict, which
    sending again does not resolve.
    """
    return status in _REPEATED or (status == 409 and _error_code(body) == "REQUEST_IN_FLIGHT")


def _error_code(body: bytes) -> object:
    try:
        told: object = from_json(body)
    except ValueError:  # a page of whatever stands before the API
        return None
    return cast("dict[str, object]", told).get("error_code") if isinstance(told, dict) else None


def http_date(text: str) -> datetime | None:
    """A date in one of the three forms of HTTP (RFC 9110, section 5.6.7); None for anything else."""
    try:
        at = parsedate_to_datetime(text)
    except (ValueError, OverflowError):  # the latter for a year or an offset of twenty digits
        return None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def retry_after_s(text: str, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` asks for (RFC 9110, section 10.2.3), 0 for a date that has passed.

    None for what is neither seconds nor a date.
    """
    if text.isascii() and text.isdigit():
        return float(text)
    at = http_date(text)
    return None if at is None else max(0.0, (at - now).total_seconds())


def next_step(
    attempts: int, *, attempts_max: int, left_s: float, told_s: float | None, chance: float
) -> Retry | GiveUp:
    """What follows *attempts* attempts of which none settled the wish (1 for the first).

    Waits as long as the server asks for (*told_s*), else between 0 and a bound that doubles from 0.5 to 8 s
    ("full jitter"; *chance* from 0 to 1), so that clients which failed together do not come again together.
    A wait that does not fit into *left_s* ends it: coming earlier than asked for helps nobody.
    """
    assert attempts >= 1
    bound_s = min(_PAUSE_S_MAX, _PAUSE_S * 2 ** min(attempts - 1, 10))
    after_s = chance * bound_s if told_s is None else told_s
    if attempts >= attempts_max or after_s >= left_s:
        return GiveUp()
    return Retry(after_s=after_s)
