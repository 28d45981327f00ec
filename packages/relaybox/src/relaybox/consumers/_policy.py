"""Decide what follows a failed attempt; pure functions."""

from dataclasses import dataclass
from typing import Final

from relaybox.consumers._errors import EnvelopeInvalid, HandlerMissing, KeyBlocked, MessageTooLarge
from relaybox.db import TRANSIENT_ERRORS, DatabaseRefused
from relaybox.events import EventUpcastFailed, EventVersionUnknown

__all__ = (
    "DATABASE_ERRORS",
    "PERMANENT_ERRORS",
    "GiveUp",
    "Retry",
    "WaitForDatabase",
    "decide_after_failure",
)

#: Errors that do not count as failures of the handler.
DATABASE_ERRORS: Final = (*TRANSIENT_ERRORS, DatabaseRefused)
#: Errors of the message itself, which no further attempt changes.
PERMANENT_ERRORS: Final = (
    *(EnvelopeInvalid, MessageTooLarge, HandlerMissing, KeyBlocked),
    *(EventVersionUnknown, EventUpcastFailed),
)
#: Pauses before the second, third and fourth attempt.
_RETRY_PAUSES_S: Final = (1.0, 2.0, 4.0)
_DATABASE_PAUSE_S: Final = 0.1
_DATABASE_PAUSE_S_MAX: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Retry:
    """Run the handler again after a pause; the failure uses up one of its four attempts."""

    pause_s: float


@dataclass(frozen=True, kw_only=True)
class WaitForDatabase:
    """Run the handler again after a pause; the database error uses up none of its attempts."""

    pause_s: float


@dataclass(frozen=True, kw_only=True)
class GiveUp:
    """Make no further attempt: park the message, or stop the consumer, as its subscription says."""


def decide_after_failure(
    failure: BaseException, *, failures: int, database_failures: int
) -> Retry | WaitForDatabase | GiveUp:
    """Decide what follows *failure*.

    A handler gets four attempts, 1 s, 2 s and 4 s apart. A database that is unavailable, overloaded, or
    rejects the consumer's own statement is retried without limit, in pauses that double up to 5 s. A message
    that cannot be read gets one attempt.

    Args:
        failure: The error of the last attempt.
        failures: Failures of the handler so far, this one included.
        database_failures: Database errors so far, this one included.
    """
    if isinstance(failure, DATABASE_ERRORS):
        pause_s = _DATABASE_PAUSE_S * 2.0 ** min(database_failures - 1, 10)
        return WaitForDatabase(pause_s=min(pause_s, _DATABASE_PAUSE_S_MAX))
    if isinstance(failure, PERMANENT_ERRORS) or failures > len(_RETRY_PAUSES_S):
        return GiveUp()
    return Retry(pause_s=_RETRY_PAUSES_S[failures - 1])
