"""Errors of a verification, which then has no result.

::

    RelayboxError
    └── VerifyError
        ├── TablesUnreadable   the tables do not exist, or this user may not read them
        ├── TopicMissing       the topic does not exist, or this user may not see it
        ├── TopicUnreadable    Kafka is unreachable, refuses, or removed records during the read
        └── TopicHeldBack      a long open transaction hides the end of a partition
"""

__all__ = ("TablesUnreadable", "TopicHeldBack", "TopicMissing", "TopicUnreadable", "VerifyError")

from relaybox.errors import RelayboxError


class VerifyError(RelayboxError):
    """Base of the errors of this package. A violation is not an error: it is in the report."""

    error_code = "VERIFY_ERROR"


class TablesUnreadable(VerifyError):
    """Raised when the tables do not exist, may not be read, or temporary tables cannot be created."""

    error_code = "VERIFY_TABLES_UNREADABLE"


class TopicMissing(VerifyError):
    """Raised when a requested topic does not exist or is not visible to this user; create it."""

    error_code = "VERIFY_TOPIC_MISSING"


class TopicUnreadable(VerifyError):
    """Raised when Kafka is unreachable, refuses access, or removed records before they were read."""

    error_code = "VERIFY_TOPIC_UNREADABLE"


class TopicHeldBack(VerifyError):
    """Raised when a transaction is open longer than one of a relay can be; it hides later records."""

    error_code = "VERIFY_TOPIC_HELD_BACK"
