"""Removal of old rows that nothing needs any more: ended commands and tasks, records of consumed events."""

from relaybox.retention._remove import RemovalCounts, remove_old_records

__all__ = ("RemovalCounts", "remove_old_records")
