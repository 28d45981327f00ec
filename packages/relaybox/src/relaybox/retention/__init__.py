"""Remove old rows: ended commands and tasks, records of consumed events, and resolved dead letters."""

from relaybox.retention._remove import RemovalCounts, remove_old_records

__all__ = ("RemovalCounts", "remove_old_records")
