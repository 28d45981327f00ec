"""Verification: compare the tables of a database with the records on its topics (G33)."""

from relaybox.kafka import partition_of
from relaybox.verify._errors import (
    TablesUnreadable,
    TopicHeldBack,
    TopicMissing,
    TopicUnreadable,
    VerifyError,
)
from relaybox.verify._report import VIOLATIONS, Example, Finding, Kind, Report, Tally
from relaybox.verify._tables import map_table_errors
from relaybox.verify._topics import Reader, TopicMetadata
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
    "TopicMetadata",
    "TopicMissing",
    "TopicUnreadable",
    "VerifyError",
    "map_table_errors",
    "partition_of",
    "verify",
)
