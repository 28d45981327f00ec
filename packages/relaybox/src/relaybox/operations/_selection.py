"""Conditions by which an operator selects outbox rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic_core import to_json

__all__ = ("Fault", "Selection", "State")


class Fault(StrEnum):
    """Cause of a failed attempt."""

    #: The broker rejects the row, or the topic of the row is missing.
    ROW = "row"
    #: No broker was reachable, or the partition of the row accepted no writes.
    LINK = "link"


class State(StrEnum):
    """State of a row, as the commands for operators show it."""

    #: A relay publishes the row after the earlier rows of its key.
    PENDING = "pending"
    #: An attempt failed; a relay retries the row at ``next_attempt_at``.
    RETRYING = "retrying"
    #: All attempts failed. The key is blocked until an operator retries or skips the row. If the cause was
    #: ``link``, the relay retries the row by itself when Kafka or the partition accepts writes again.
    FAILED = "failed"
    #: An operator skipped the row: it is never published.
    SKIPPED = "skipped"
    #: The broker has acknowledged the record.
    SENT = "sent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Conditions that a row must meet, all of them; an empty condition is met by every row."""

    ids: Sequence[UUID] = ()
    seqs: Sequence[int] = ()
    keys: Sequence[str] = ()
    #: Error classes in ``error_data``, such as ``RecordTooLarge``.
    error_classes: Sequence[str] = ()
    #: Cause of the last failure; None selects rows with any cause, and rows that have not failed.
    fault: Fault | None = None
    #: Seconds that must have passed since the row was SENT or skipped, or, in any other state, since it was
    #: written; None: no condition.
    older_than_s: float | None = None

    def names_rows(self) -> bool:
        """Return whether ids or seqs are set; an action that finds none of the named rows raises an error."""
        return bool(self.ids or self.seqs)

    def selects_every_row(self) -> bool:
        """Return whether no condition is set; an ``older_than_s`` of 0 counts as no condition."""
        return not (self.names_rows() or self.keys or self.error_classes or self.fault or self.older_than_s)

    def arguments(self) -> tuple[Any, ...]:
        """Return the parameters $1 to $6 of the query ``selected``."""
        lists = (self.ids, self.seqs, self.keys, self.error_classes)
        return (*(list(values) or None for values in lists), self.fault, self.older_than_s)

    def as_json(self) -> str:
        """Return the conditions that are set as JSON, for the record of an action."""
        return to_json(
            {name: value for name, value in asdict(self).items() if value not in (None, ())}
        ).decode()
