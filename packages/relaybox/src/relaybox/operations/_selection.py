"""Selection of rows by an operator."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic_core import to_json

__all__ = ("Fault", "Selection", "State")


class Fault(StrEnum):
    """Cause of a failed attempt: the row itself, or the link to Kafka."""

    ROW = "row"
    LINK = "link"


class State(StrEnum):
    """State of a row, as operators see it."""

    #: A relay publishes it after the earlier rows of its key.
    PENDING = "pending"
    #: An attempt failed; a relay retries it.
    RETRYING = "retrying"
    #: All attempts failed. Its key is blocked until an operator acts or, if the link failed, Kafka is
    #: reachable.
    FAILED = "failed"
    #: An operator decided that it is never published.
    SKIPPED = "skipped"
    #: The broker has acknowledged it.
    SENT = "sent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """Rows that meet all conditions; an empty condition selects every row."""

    ids: Sequence[UUID] = ()
    seqs: Sequence[int] = ()
    keys: Sequence[str] = ()
    #: Error classes in ``error_data``, such as ``RecordTooLarge``.
    error_classes: Sequence[str] = ()
    fault: Fault | None = None
    #: Minimum seconds since the row was sent or skipped; for any other row, since it was written.
    older_than_s: float | None = None

    def names_rows(self) -> bool:
        """Whether rows are named by id or seq, so that an empty result is an error."""
        return bool(self.ids or self.seqs)

    def selects_every_row(self) -> bool:
        """Whether there is no condition."""
        return not (self.names_rows() or self.keys or self.error_classes or self.fault or self.older_than_s)

    def arguments(self) -> tuple[Any, ...]:
        """Return the six parameters of the query ``selected``."""
        lists = (self.ids, self.seqs, self.keys, self.error_classes)
        return (*(list(values) or None for values in lists), self.fault, self.older_than_s)

    def as_json(self) -> str:
        """Return the conditions that are set as JSON, for the record of an action."""
        return to_json(
            {name: value for name, value in asdict(self).items() if value not in (None, ())}
        ).decode()
