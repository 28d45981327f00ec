"""Decide what follows a failed attempt to handle, park or replay a message; pure functions."""

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
    "database_reason",
    "decide_after_failure",
    "is_database_failure",
)

#: Database errors. They do not count as failures of the handler, except if one message has over 20 of them
#: while messages of other keys commit.
DATABASE_ERRORS: Final = (*TRANSIENT_ERRORS, DatabaseRefused)
#: Database errors that concern every message. After such an error the consumer pauses, and then tries one
#: transaction at a time until the database responds again.
DATABASE_DOWN: Final = (DatabaseUnavailable, DatabaseRefused)
#: Errors that a further attempt cannot change: the message is parked, or the consumer stops, at once.
PERMANENT_ERRORS: Final = (
    *(EnvelopeInvalid, MessageTooLarge, HandlerMissing, KeyBlocked, ParkedByOperator),
    *(EventVersionUnknown, EventUpcastFailed, HandlerEndedProcess),
)
#: Pauses before the second, third and fourth attempt.
_RETRY_PAUSES_S: Final = (1.0, 2.0, 4.0)
_DATABASE_PAUSE_S: Final = 0.1
_DATABASE_PAUSE_S_MAX: Final = 5.0
#: A message may have this many database errors while messages of other keys commit. Each further database
#: error of the message counts as a failure of its handler, because the database works for other keys. For
#: example, a statement of the handler always exceeds its time limit, or a row stays locked. With the pauses
#: between the attempts, a message reaches this number after at least 75 s.
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
    """Return whether *failure* is a database error that uses up no attempt of the handler.

    Args:
        failure: The error of the last attempt.
        isolated_failures: How many attempts at this message, the last one included, ended with a database
            error although messages of other keys had committed since the message's previous database error.
            Above 20 the database is not considered the cause, and the result is False.
    """
    return isinstance(failure, DATABASE_ERRORS) and isolated_failures <= _ISOLATED_FAILURES_MAX


def decide_after_failure(
    failure: BaseException, *, failures: int, database_failures: int, isolated_failures: int = 0
) -> Retry | WaitForDatabase | GiveUp:
    """Decide whether the message whose attempt ended with *failure* gets another attempt, and when.

    A handler gets four attempts, 1 s, 2 s and 4 s apart. An error that no further attempt can change, for
    example that the message is not an event, ends the attempts at once. If the database is unavailable or
    overloaded, or rejects a statement of the consumer itself, the message is retried without limit, after
    pauses that double up to 5 s, except after an error for which :func:`is_database_failure` returns False.

    Args:
        failure: The error of the last attempt.
        failures: Attempts so far that count as failures of the handler, the last attempt included if it does.
        database_failures: Attempts so far that count as database errors, the last one included if it does.
        isolated_failures: See :func:`is_database_failure`.
    """
    if is_database_failure(failure, isolated_failures=isolated_failures):
        return WaitForDatabase(pause_s=database_pause_s(database_failures))
    if isinstance(failure, PERMANENT_ERRORS) or failures > len(_RETRY_PAUSES_S):
        return GiveUp()
    return Retry(pause_s=_RETRY_PAUSES_S[failures - 1])


def database_reason(error: Exception) -> str:
    """Return the text of *error* for the log; a ``TimeoutError`` has no text, so a default is returned."""
    return str(error) or "no response in time"


def database_pause_s(failures: int) -> float:
    """Return the pause in seconds after *failures* database errors in a row: 0.1, 0.2, 0.4, … at most 5."""
    return min(_DATABASE_PAUSE_S * 2.0 ** min(failures - 1, 10), _DATABASE_PAUSE_S_MAX)
