"""Errors that end a verification without a report.

::

    RelayboxError
    └── VerifyError
        ├── TablesUnreadable   the tables do not exist, or this role has no right to read them
        ├── TopicMissing       the topic does not exist, or this account has no right to describe it
        ├── TopicUnreadable    Kafka is unreachable, refuses access, or removed records during the read
        └── TopicHeldBack      a transaction that stays open hides the later records of a partition
"""

__all__ = ("TablesUnreadable", "TopicHeldBack", "TopicMissing", "TopicUnreadable", "VerifyError")

from relaybox.errors import RelayboxError


class VerifyError(RelayboxError):
    """Base class of the errors of a verification. A violation is no error: the report lists it."""

    error_code = "VERIFY_ERROR"


class TablesUnreadable(VerifyError):
    """Raised when tables do not exist or cannot be read, or temporary tables cannot be created."""

    error_code = "VERIFY_TABLES_UNREADABLE"


class TopicMissing(VerifyError):
    """Raised when a requested topic does not exist, or this account has no right to describe it."""

    error_code = "VERIFY_TOPIC_MISSING"


class TopicUnreadable(VerifyError):
    """Raised when Kafka is unreachable, refuses access, or removed records before they were read."""

    error_code = "VERIFY_TOPIC_UNREADABLE"


class TopicHeldBack(VerifyError):
    """Raised when an open Kafka transaction hides the later records of a partition for over 75 s.

    A relay's transaction cannot stay open for so long.
    """

    error_code = "VERIFY_TOPIC_HELD_BACK"
