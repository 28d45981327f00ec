"""Remove old rows: ended commands and tasks, and records of consumed events."""

from relaybox.retention._remove import RemovalCounts, remove_old_records

__all__ = ("RemovalCounts", "remove_old_records")
