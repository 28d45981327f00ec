"""What every rebuild of snapshots from ``domain_events`` says, whichever application's they are."""

from enum import StrEnum

from relaybox.errors import RelayboxError

__all__ = ("DifferenceKind", "HistoryUnreadable")


class HistoryUnreadable(RelayboxError):
    """Raised when the events of an aggregate make no state: one is unknown, missing or malformed.

    Nothing was changed for that aggregate.
    """

    error_code = "HISTORY_UNREADABLE"


class DifferenceKind(StrEnum):
    """How what is stored departs from what the events say."""

    MISSING = "MISSING"  # events, but nothing stored
    EXTRA = "EXTRA"  # stored, but no events
    DIFFERENT = "DIFFERENT"  # both, with other values
