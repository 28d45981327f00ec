"""Decide what follows a failed attempt; pure functions."""

from dataclasses import dataclass
from typing import Final

from relaybox.consumers._errors import (
    EnvelopeInvalid,
    HandlerEndedProcess,
    HandlerMissing,
    KeyBlocked,
    MessageTooLarge,
    ParkedByOperator,
)
from relaybox.db import TRANSIENT_ERRORS, DatabaseRefused, DatabaseUnavailable
from relaybox.events import EventUpcastFailed, EventVersionUnknown

__all__ = (
    "DATABASE_DOWN",
    "DATABASE_ERRORS",
    "PERMANENT_ERRORS",
    "GiveUp",
    "Retry",
    "WaitForDatabase",
    "database_pause_s",
    "decide_after_failure",
    "is_database_failure",
)

#: Errors that do not count as failures of the handler, unless only one message has them.
DATABASE_ERRORS: Final = (*TRANSIENT_ERRORS, DatabaseRefused)
#: Errors that concern every key: no work begins until the database responds again.
DATABASE_DOWN: Final = (DatabaseUnavailable, DatabaseRefused)
#: Errors of the message itself, which no further attempt changes.
PERMANENT_ERRORS: Final = (
    *(EnvelopeInvalid, MessageTooLarge, HandlerMissing, KeyBlocked, ParkedByOperator),
    *(EventVersionUnknown, EventUpcastFailed, HandlerEndedProcess),
)
#: Pauses before the second, third and fourth attempt.
_RETRY_PAUSES_S: Final = (1.0, 2.0, 4.0)
_DATABASE_PAUSE_S: Final = 0.1
_DATABASE_PAUSE_S_MAX: Final = 5.0
#: After this many database errors of one message, although other keys committed meanwhile, its further ones
#: count as failures of its handler: a statement that always exceeds its time limit, a row that stays locked.
#: With the pauses this takes at least 75 s.
_ISOLATED_FAILURES_MAX: Final = 20


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


def is_database_failure(failure: BaseException, *, isolated_failures: int) -> bool:
    """Return whether *failure* is an error of the database, which does not count as failure of the handler.

    Args:
        failure: The error of the last attempt.
        isolated_failures: Attempts at this message that ended with a database error, this one included,
            although other keys had committed since the attempt before.
    """
    return isinstance(failure, DATABASE_ERRORS) and isolated_failures <= _ISOLATED_FAILURES_MAX


def decide_after_failure(
    failure: BaseException, *, failures: int, database_failures: int, isolated_failures: int = 0
) -> Retry | WaitForDatabase | GiveUp:
    """Decide what follows *failure*.

    A handler gets four attempts, 1 s, 2 s and 4 s apart. A database that is unavailable, overloaded, or
    rejects the consumer's own statement is retried without limit, in pauses that double up to 5 s. After 20
    such errors of one message, each while other keys committed, further ones count as failures of its
    handler. A message that cannot be read gets one attempt.

    Args:
        failure: The error of the last attempt.
        failures: Failures of the handler so far, this one included.
        database_failures: Database errors so far, this one included.
        isolated_failures: See :func:`is_database_failure`.
    """
    if is_database_failure(failure, isolated_failures=isolated_failures):
        return WaitForDatabase(pause_s=database_pause_s(database_failures))
    if isinstance(failure, PERMANENT_ERRORS) or failures > len(_RETRY_PAUSES_S):
        return GiveUp()
    return Retry(pause_s=_RETRY_PAUSES_S[failures - 1])


def database_pause_s(failures: int) -> float:
    """Return the pause after so many errors of the database in a row."""
    return min(_DATABASE_PAUSE_S * 2.0 ** min(failures - 1, 10), _DATABASE_PAUSE_S_MAX)
