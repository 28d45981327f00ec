"""Proving the promises on a user's own database and topics: tables against what readers find (G33)."""

from relaybox.verify._errors import (
    TablesUnreadable,
    TopicHeldBack,
    TopicMissing,
    TopicUnreadable,
    VerifyError,
)
from relaybox.verify._records import partition_of
from relaybox.verify._report import VIOLATIONS, Example, Finding, Kind, Report, Tally
from relaybox.verify._tables import tables_needed
from relaybox.verify._topics import Reader, Topics
from relaybox.verify._verify import verify

__all__ = (
    "VIOLATIONS",
    "Example",
    "Finding",
    "Kind",
    "Reader",
    "Report",
    "TablesUnreadable",
    "Tally",
    "TopicHeldBack",
    "TopicMissing",
    "TopicUnreadable",
    "Topics",
    "VerifyError",
    "partition_of",
    "tables_needed",
    "verify",
)
