"""Remove old rows: ended commands, tasks and flows, records of consumed events, resolved dead letters."""

from relaybox.retention._remove import RemovalCounts, remove_old_records

__all__ = ("RemovalCounts", "remove_old_records")
