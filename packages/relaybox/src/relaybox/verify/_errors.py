"""Why nothing could be proven: neither that the promises hold nor that they do not.

::

    RelayboxError
    └── VerifyError
        ├── TablesUnreadable   no such tables, or no right to read them
        ├── TopicMissing       Kafka has no such topic, or does not show it to us
        ├── TopicUnreadable    Kafka is away, refuses, or removed records while we read
        └── TopicHeldBack      a transaction is open for so long that its partition cannot be read to the end
"""

__all__ = ("TablesUnreadable", "TopicHeldBack", "TopicMissing", "TopicUnreadable", "VerifyError")

from relaybox.errors import RelayboxError


class VerifyError(RelayboxError):
    """Base of the errors of this package; a violated promise is none, it stands in the report."""

    error_code = "VERIFY_ERROR"


class TablesUnreadable(VerifyError):
    """Raised when the tables are not there or may not be read, or no temporary table may be made."""

    error_code = "VERIFY_TABLES_UNREADABLE"


class TopicMissing(VerifyError):
    """Raised when a topic that was asked for does not exist, or is not shown to this user; create it."""

    error_code = "VERIFY_TOPIC_MISSING"


class TopicUnreadable(VerifyError):
    """Raised when Kafka is away, refuses to hand out a topic, or removed records before they were read."""

    error_code = "VERIFY_TOPIC_UNREADABLE"


class TopicHeldBack(VerifyError):
    """Raised when a transaction stays open longer than a relay's may: nobody reads past it; try later."""

    error_code = "VERIFY_TOPIC_HELD_BACK"
